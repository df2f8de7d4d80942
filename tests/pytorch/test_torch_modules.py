"""Whole modules of mace-torch, made on the spot. Skipped where PyTorch or mace-torch is absent."""

from __future__ import annotations

import os

import ase
import numpy as np
import pytest

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
torch = pytest.importorskip("torch")
modules = pytest.importorskip("mace.modules")
extensions = pytest.importorskip("mace.modules.extensions")
from e3nn import o3  # noqa: E402

from mace_scf_jax.pytorch import (  # noqa: E402
    compare_with_torch,
    export_torch_model,
    import_model,
)
from mace_scf_jax.pytorch.configuration import TorchConfigurationError  # noqa: E402
from mace_scf_jax.pytorch.files import read_torch_model, write_torch_model  # noqa: E402
from mace_scf_jax.pytorch.module import TorchModelError  # noqa: E402

# of PyTorch 2.13, for what mace-torch does
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning"),
]

TOLERANCE = 1e-10
BLOCKS = modules.interaction_classes


def make(kind, **changes):
    """A small module with random weights in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    arguments = {
        "r_max": 4.0,
        "num_bessel": 5,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": BLOCKS["RealAgnosticResidualInteractionBlock"],
        "interaction_cls_first": BLOCKS["RealAgnosticResidualInteractionBlock"],
        "num_interactions": 2,
        "num_elements": 2,
        "hidden_irreps": o3.Irreps("4x0e + 4x1o"),
        "MLP_irreps": o3.Irreps("6x0e"),
        "atomic_energies": np.array([[-1.0, -3.0]]),
        "avg_num_neighbors": 5.0,
        "atomic_numbers": [1, 8],
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "radial_MLP": [8, 8],
    }
    try:
        kinds = extensions if kind == "MACELES" else modules
        return getattr(kinds, kind)(**(arguments | changes))
    finally:
        torch.set_default_dtype(before)


SCALED = {"atomic_inter_scale": 0.8, "atomic_inter_shift": 0.1}
CASES = {
    "MACE": ("MACE", {"pair_repulsion": True}),
    "density": (
        "ScaleShiftMACE",
        SCALED
        | {
            "distance_transform": "Agnesi",
            "interaction_cls": BLOCKS["RealAgnosticDensityResidualInteractionBlock"],
            "interaction_cls_first": BLOCKS["RealAgnosticDensityInteractionBlock"],
        },
    ),
    "one layer": ("MACE", {"num_interactions": 1, "distance_transform": "Soft"}),
    "nonlinear": (
        "ScaleShiftMACE",
        SCALED
        | {
            "interaction_cls": BLOCKS["RealAgnosticResidualNonLinearInteractionBlock"],
            "interaction_cls_first": BLOCKS["RealAgnosticResidualNonLinearInteractionBlock"],
            "edge_irreps": o3.Irreps("2x0e + 2x1o"),
            "use_edge_irreps_first": True,
            "use_agnostic_product": True,
            "apply_cutoff": False,
        },
    ),
    "options": (
        "ScaleShiftMACE",
        SCALED
        | {
            "correlation": [2, 1],
            "use_last_readout_only": True,
            "keep_last_layer_irreps": True,
            "readout_cls": modules.blocks.NonLinearBiasReadoutBlock,
        },
    ),
    "scalars": (
        "ScaleShiftMACE",
        SCALED
        | {
            "radial_type": "gaussian",
            "num_interactions": 3,
            "hidden_irreps": o3.Irreps("4x0e"),
            "gate": torch.tanh,
        },
    ),
}


def structures() -> list[ase.Atoms]:
    """A crystal and a molecule."""
    rng = np.random.default_rng(0)
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1.1, 0], [3, 3, 3], [4, 3, 3], [3, 4, 3.2]])
    crystal = ase.Atoms(
        "OHHOHH", positions + rng.normal(scale=0.05, size=(6, 3)), cell=[7, 7, 7], pbc=True
    )
    return [crystal, ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])]


@pytest.mark.parametrize("case", CASES)
def test_predictions_and_weights(case, tmp_path):
    kind, changes = CASES[case]
    module = make(kind, **changes)
    path = tmp_path / "small.model"
    torch.save(module, path)
    with pytest.raises(TorchModelError, match=r"small\.model: .* runs code .*: --trust"):
        import_model(path)
    model = import_model(path, trust=True)
    for parity in compare_with_torch(model, path, structures()):
        assert parity.passes(TOLERANCE), parity
        assert parity.largest_force > 1e-3
        assert (parity.stress is None) == (parity.formula == "H2O")
    exported = export_torch_model(model, template=read_torch_model(path, trust=True))
    for name, values in module.state_dict().items():
        np.testing.assert_array_equal(exported.state[name], values.numpy(), strict=True)
    write_torch_model(tmp_path / "small.pt", export_torch_model(model))
    content = torch.load(tmp_path / "small.pt", weights_only=True)
    found = make(kind, **changes).load_state_dict(content["state_dict"], strict=False)
    assert found.unexpected_keys == []
    assert not set(found.missing_keys) & dict(module.named_parameters()).keys()


def test_one_of_several_heads(tmp_path):
    path = tmp_path / "two.model"
    module = make(
        "ScaleShiftMACE",
        heads=["a", "b"],
        atomic_energies=np.array([[-1.0, -3.0], [-1.1, -3.1]]),
        atomic_inter_scale=[0.8, 1.2],
        atomic_inter_shift=[0.1, -0.2],
    )
    torch.save(module, path)
    with pytest.raises(TorchConfigurationError, match=r"heads a, b; say which"):
        import_model(path, trust=True)
    for head in ("a", "b"):
        model = import_model(path, trust=True, head=head)
        for parity in compare_with_torch(model, path, structures()):
            assert parity.passes(TOLERANCE), parity
            assert parity.largest_force > 1e-3


def test_files_in_single_precision_agree_but_for_their_rounded_constants(tmp_path):
    torch.save(make("ScaleShiftMACE", **SCALED).float(), tmp_path / "single.model")
    model = import_model(tmp_path / "single.model", trust=True)
    for parity in compare_with_torch(model, tmp_path / "single.model", structures()):
        assert parity.passes(TOLERANCE), parity


def test_charge_and_spin(tmp_path):
    specs = {
        "total_spin": {"type": "categorical", "per": "graph", "in_dim": 1, "emb_dim": 3}
        | {"num_classes": 5, "offset": 0},
        "total_charge": {"type": "categorical", "per": "graph", "in_dim": 1, "emb_dim": 3}
        | {"num_classes": 5, "offset": 2},
    }
    module = make("ScaleShiftMACE", **SCALED, embedding_specs=specs, use_embedding_readout=True)
    torch.save(module, tmp_path / "embedded.model")
    model = import_model(tmp_path / "embedded.model", trust=True)
    for parity in compare_with_torch(model, tmp_path / "embedded.model", structures()):
        assert parity.passes(TOLERANCE), parity


def test_latent_charges(tmp_path):
    pytest.importorskip("les")
    module = make("MACELES", **SCALED, les_arguments={"sigma": 1.3, "dl": 2.5})
    module.les.ewald.norm_factor = 90.0474
    module.les.ewald.remove_self_interaction = False
    torch.save(module, tmp_path / "latent.model")
    model = import_model(tmp_path / "latent.model", trust=True)
    for parity in compare_with_torch(model, tmp_path / "latent.model", structures()):
        assert parity.passes(TOLERANCE), parity
        assert parity.stress is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"interaction_cls": BLOCKS["RealAgnosticAttResidualInteractionBlock"]},
            r"attention along edges \(RealAgnosticAttResidualInteractionBlock\): no public model",
        ),
        ({"hidden_irreps": o3.Irreps("4x0e + 4x0o + 4x1o")}, r"unnatural parity .*: no public"),
        ({"use_so3": True}, r"even parity \(use_so3\): no public model"),
    ],
)
def test_networks_that_no_public_model_has(changes, message, tmp_path):
    torch.save(make("ScaleShiftMACE", **SCALED, **changes), tmp_path / "other.model")
    with pytest.raises(TorchModelError, match=message):
        import_model(tmp_path / "other.model", trust=True)


def test_products_in_the_basis_of_cuequivariance(tmp_path):
    pytest.importorskip("cuequivariance_torch")
    module = make("ScaleShiftMACE", **SCALED, use_reduced_cg=True, correlation=3)
    contraction = module.products[0].symmetric_contractions.contractions[1]
    assert contraction.U_matrix_3.shape[-1] < 10
    torch.save(module, tmp_path / "reduced.model")
    model = import_model(tmp_path / "reduced.model", trust=True)
    for parity in compare_with_torch(model, tmp_path / "reduced.model", structures()):
        assert parity.passes(TOLERANCE), parity


class Intruder:
    """Its pickle would make a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_pickle_is_executed_without_trust(tmp_path):
    torch.save({"model": Intruder(tmp_path / "executed")}, tmp_path / "intruder.model")
    with pytest.raises(TorchModelError, match=r"intruder\.model: .* runs code .*--trust"):
        import_model(tmp_path / "intruder.model")
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_spin_resolved_multipoles(tmp_path, monkeypatch):
    """Of an ion, a radical in a field and a charged crystal; constants of the file are rounded."""
    pytest.importorskip("graph_longrange")
    extensions = pytest.importorskip("mace.modules.extensions")
    monkeypatch.setattr(modules, "PolarMACE", extensions.PolarMACE, raising=False)
    block = BLOCKS["RealAgnosticResidualNonLinearInteractionBlock"]
    module = make(
        "PolarMACE",
        **SCALED,
        interaction_cls=block,
        interaction_cls_first=block,
        edge_irreps=o3.Irreps("2x0e + 2x1o"),
        heads=["Default"],
        atomic_multipoles_max_l=1,
        atomic_multipoles_smearing_width=1.5,
        field_feature_max_l=1,
        field_feature_widths=[1.5, 3.0],
        field_feature_norms=[20.0, 20.0, 0.5, 0.5],
        num_recursion_steps=2,
        include_electrostatic_self_interaction=True,
        add_local_electron_energy=True,
        fixedpoint_update_config={
            "type": "AgnosticEmbeddedOneBodyVariableUpdate",
            "potential_embedding_cls": "AgnosticChargeBiasedLinearPotentialEmbedding",
            "nonlinearity_cls": "MLPNonLinearity",
        },
        field_readout_config={"type": "OneBodyMLPFieldReadout"},
    )
    with torch.no_grad():  # Fukui weights that do not nearly add up to nothing
        module.fukui_source_map.linear_2.bias.fill_(3.0)
        for step in module.field_dependent_charges_maps:
            step.readout.linear_2.bias[-2:] = 30.0
    torch.save(module.float(), tmp_path / "polar.model")
    model = import_model(tmp_path / "polar.model", trust=True)
    crystal, ion = structures()
    crystal.info = {"total_charge": 1.0, "total_spin": 2.0}
    ion += ase.Atoms("H", [[-0.3, -0.4, 0.9]])
    radical = ion.copy()
    ion.info = {"total_charge": 1.0}
    radical.info = {"total_spin": 2.0, "external_field": [0.01, 0.02, -0.03]}
    for parity in compare_with_torch(model, tmp_path / "polar.model", [crystal, ion, radical]):
        assert parity.passes(1e-9), parity
        assert parity.largest_force > 1e-3


def test_files_that_cannot_be_used(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(TorchModelError, match=r"expected one of MACE, .*, found a Linear"):
        import_model(tmp_path / "linear.model", trust=True)
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(TorchModelError, match="expected a module, or 'state_dict'"):
        import_model(tmp_path / "other.pt")
    (tmp_path / "text.model").write_text("no archive")
    for trust in (False, True):
        with pytest.raises(TorchModelError, match=r"text\.model: not a readable file"):
            import_model(tmp_path / "text.model", trust=trust)
