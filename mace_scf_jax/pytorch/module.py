"""PyTorch modules, their state dicts and options, as data. The only place that imports PyTorch."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.backbones.mace.choices import INTERACTIONS, READOUT_CLASSES
from mace_scf_jax.pytorch.configuration import MACELES, POLAR_MACE, UPDATE
from mace_scf_jax.pytorch.configuration_aenet import (
    AENET_ENTRIES,
    AENET_FAMILY,
    AENET_STATE,
    ATOMIC_ENERGIES,
)


class TorchModelError(ValueError):
    """A file holds no PyTorch model, or one that cannot be turned into data."""


@dataclasses.dataclass(frozen=True)
class TorchModel:
    """What defines a PyTorch model."""

    configuration: dict[str, Any]
    """Plain data; see `mace_scf_jax.pytorch.configuration`."""
    state: dict[str, np.ndarray]
    """Parameters and buffers by their state-dict names."""


FAMILIES_OF_MACE = ("MACE", "ScaleShiftMACE", MACELES, POLAR_MACE)
"""Classes of mace-torch, whose calculator evaluates them."""
FAMILIES_WITH_CHARGES = (
    "LocalCharges",
    "LocalSplitCharges",
    "FixedChargeBaselinedMACE",
    "MACEQEq",
    "FixedPoint",
)
_WITHOUT_STRESS = (MACELES, POLAR_MACE)
"""Classes of mace-torch 0.3.16 whose stress lacks the strain of their Coulomb energy."""
RADIAL_TYPES = {
    "BesselBasis": "bessel",
    "GaussianBasis": "gaussian",
    "ChebychevBasis": "chebyshev",
}
DISTANCE_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
WITHOUT_COUNTERPART = "no public model is known to have them, and there is no counterpart here"
_NOT_STORED = (
    "pbc_handling",
    "include_electrostatic_self_interaction",
    "field_si",
    "add_local_electron_energy",
    "default_hardness",
    "read_enegs",
    "read_hardness",
    "train_hardness",
)
"""Options of the families with charges that the state dict does not tell: attributes."""
_OF_LATENT_SUMS = ("sigma", "dl", "norm_factor", "remove_self_interaction")
"""Attributes of the Coulomb sums of les, which differ between files."""


def load_torch_file(path: Path, *, trust: bool = False) -> TorchModel:
    """What a file of ``torch.save`` holds: a module, or a state dict with its configuration.

    Models that ænet-python saved are the latter.

    Args:
        path: of the file.
        trust: read whole modules too, which runs code that is in the file.

    Raises:
        TorchModelError: PyTorch or a package that the file needs is absent, the file is missing or
            damaged, holds something else, or needs `trust`.
    """
    torch = _torch(path)
    if trust:
        _make_modules_of_mace_readable()
    if not path.is_file():
        raise TorchModelError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        if not trust and _may_be_pickle(path):
            raise TorchModelError(
                f"{path}: holds Python objects, and reading them runs code that is in the file; if "
                "it is yours or from people you trust, say so: --trust, in Python trust=True"
            ) from None
        raise TorchModelError(f"{path}: not a readable file of torch.save ({error})") from error
    except ModuleNotFoundError as error:
        source = _WITHOUT_REGISTRY.get(error.name or "", "")
        raise TorchModelError(
            f"{path}: reading it needs the package that it was made with ({error}){source}"
        ) from error
    except (RuntimeError, EOFError, AttributeError, OSError) as error:
        raise TorchModelError(f"{path}: not a readable file of torch.save ({error})") from error
    if isinstance(content, Mapping) and {"configuration", "state_dict"} <= content.keys():
        return TorchModel(content["configuration"], _numpy(content["state_dict"]))
    if isinstance(content, Mapping) and {*AENET_ENTRIES, AENET_STATE} <= content.keys():
        return torch_model_of_aenet(content)
    if not isinstance(content, torch.nn.Module):
        raise TorchModelError(
            f"{path}: expected a module, or 'state_dict' with its 'configuration', or what "
            f"ænet-python saves, found {type(content).__name__}"
        )
    try:
        return torch_model_of(content)
    except TorchModelError as error:
        raise TorchModelError(f"{path}: {error}") from error


def _may_be_pickle(path: Path) -> bool:
    """Whether a file begins as one of ``torch.save``, of now (an archive) or before."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def save_torch_file(path: Path, model: TorchModel) -> None:
    """Write a state dict with its configuration for ``torch.load(path, weights_only=True)``."""
    torch = _torch(path)
    state = {name: torch.from_numpy(np.array(values)) for name, values in model.state.items()}
    torch.save({"configuration": model.configuration, "state_dict": state}, path)


def torch_model_of(module: Any) -> TorchModel:
    """A module of mace-torch or MACE_SCF as data.

    Args:
        module: the module.

    Raises:
        TorchModelError: its class, or something in it, has no counterpart here.
    """
    family = type(module).__name__
    if family not in (*FAMILIES_OF_MACE, *FAMILIES_WITH_CHARGES):
        raise TorchModelError(
            f"expected one of {', '.join((*FAMILIES_OF_MACE, *FAMILIES_WITH_CHARGES))}, "
            f"found a {family}; docs/how_to/from_mace.md tells which public models are imported"
        )
    _refuse_unsupported(module)
    state = _numpy(module.state_dict())
    configuration: dict[str, Any] = {
        "model": family,
        "atomic_numbers": [int(number) for number in module.atomic_numbers],
        "backbone": _backbone(module),
        "options": _backbone_options(module, state),
    }
    if family == MACELES:
        sums = {name: _plain(getattr(module.les.ewald, name)) for name in _OF_LATENT_SUMS}
        configuration["options"]["les_attributes"] = sums
    if family == POLAR_MACE:
        configuration["options"] |= _polar_options(module, state)
    elif family in FAMILIES_WITH_CHARGES:
        configuration["options"] |= options_from_state(family, state)
        for name in _NOT_STORED:
            if hasattr(module, name):
                configuration["options"][name] = _plain(getattr(module, name))
        configuration |= _named_parts(module, family, configuration["options"])
    return TorchModel(configuration, state)


def torch_model_of_aenet(content: Mapping[str, Any]) -> TorchModel:
    """A model of ænet-python as data.

    Args:
        content: what it saved.
    """
    names = (*AENET_ENTRIES, ATOMIC_ENERGIES)
    configuration = {name: _plain_tree(content.get(name)) for name in names}
    state = _numpy(content[AENET_STATE])
    return TorchModel({"model": AENET_FAMILY, **configuration}, state)


def torch_predictions(
    path: Path, structures: list[Any], *, head: str | None = None
) -> list[dict[str, np.ndarray]]:
    """What mace-torch computes with a module of its own, in double precision.

    Energies (eV) and forces (eV/Å), and in crystals the stress (eV/Å³); not of `MACELES` and
    `PolarMACE`, whose stress lacks that of the Coulomb energy.

    Args:
        path: a file with the whole module.
        structures: ASE atoms, with charge, spin and external field by MACE's names in ``info``.
        head: which one of the module's heads; None if it names none.

    Raises:
        TorchModelError: mace-torch is absent, or the file holds something else.
    """
    torch = _torch(path)
    _make_modules_of_mace_readable()
    try:
        from mace.calculators import MACECalculator
    except ModuleNotFoundError as error:
        raise TorchModelError(f"comparing with {path} needs mace-torch ({error})") from error
    module = torch.load(path, map_location="cpu", weights_only=False)
    family = type(module).__name__
    if family not in FAMILIES_OF_MACE:
        raise TorchModelError(
            f"{path}: comparisons are made for {', '.join(FAMILIES_OF_MACE)}, found a {family}"
        )
    module = module.double()
    named = {} if head is None else {"head": head}
    if family == POLAR_MACE:
        named["model_type"] = family
    before, predictions = torch.get_default_dtype(), []
    torch.set_default_dtype(torch.float64)  # in which graph_longrange makes its arrays
    try:
        _set_constants_exactly(torch, module)
        calculator = MACECalculator(models=[module], device="cpu", default_dtype="float64", **named)
        for atoms in structures:
            entry = atoms.copy()
            entry.calc = calculator
            found = {
                "energy": np.asarray(entry.get_potential_energy()),
                "forces": entry.get_forces(),
            }
            if family not in _WITHOUT_STRESS and entry.pbc.all():
                found["stress"] = entry.get_stress(voigt=False)
            predictions.append(found)
    finally:
        torch.set_default_dtype(before)
    return predictions


def _set_constants_exactly(torch: Any, module: Any) -> None:
    """Give Bessel functions, couplings and Gaussians their values in double precision.

    Files in single precision hold them rounded, which is no matter of the weights.
    """
    from mace.tools.cg import U_matrix_real

    basis = module.radial_embedding.bessel_fn
    if isinstance(getattr(basis, "prefactor", None), torch.Tensor):
        size, cutoff = len(basis.bessel_weights), float(module.r_max)
        numbers = torch.arange(1, size + 1, dtype=torch.float64)
        basis.bessel_weights = numbers * (math.pi / cutoff)
        basis.prefactor = torch.tensor(math.sqrt(2.0 / cutoff), dtype=torch.float64)
    for product in module.products:
        parts = product.symmetric_contractions
        for contraction, irrep in zip(parts.contractions, parts.irreps_out, strict=True):
            for name, stored in list(contraction.named_buffers()):
                if not name.startswith(_COUPLINGS):
                    continue
                *_, exact = U_matrix_real(
                    irreps_in=contraction.coupling_irreps,
                    irreps_out=str(irrep.ir),
                    correlation=int(name.removeprefix(_COUPLINGS)),
                    use_cueq_cg=False,
                    dtype=torch.float64,
                )
                if exact.shape == stored.shape and torch.allclose(exact, stored, atol=1e-5):
                    setattr(contraction, name, exact)
    if type(module).__name__ == POLAR_MACE:
        _make_electrostatics_anew(torch, module)


def _make_electrostatics_anew(torch: Any, module: Any) -> None:
    """Replace the parts of a PolarMACE module that hold constants of Gaussians, and no weights."""
    max_l, width = module.atomic_multipoles_max_l, module.atomic_multipoles_smearing_width
    feature_l, widths = module.field_feature_max_l, list(module.field_feature_widths)
    narrowest, highest_l = min([width, *widths]), max(max_l, feature_l)
    cutoff = module.kspace_cutoff_factor * _basic_cutoff(narrowest, highest_l)
    features = type(module.electric_potential_descriptor)
    module.electric_potential_descriptor = features(
        density_max_l=max_l,
        density_smearing_width=width,
        feature_max_l=feature_l,
        feature_smearing_widths=widths,
        kspace_cutoff=cutoff,
        include_self_interaction=module.field_si,
        quadrupole_feature_corrections=module.quadrupole_feature_corrections,
        integral_normalization="receiver",
    )
    module.coulomb_energy = type(module.coulomb_energy)(
        density_max_l=max_l,
        density_smearing_width=width,
        kspace_cutoff=cutoff,
        include_self_interaction=module.include_electrostatic_self_interaction,
    )
    module.external_field_contribution = type(module.external_field_contribution)(
        feature_l, widths, "receiver"
    )
    module.kspace_cutoff = torch.tensor(cutoff, dtype=torch.float64)


def _basic_cutoff(narrowest: float, highest_l: int) -> float:
    """Radius of reciprocal sums in 1/Å for a cutoff factor of 1."""
    return 0.75 * 3.0 / narrowest * (highest_l + 1) ** 0.3


_COUPLINGS = "U_matrix_"
"""Start of the names of couplings in products."""


_WITHOUT_REGISTRY = {"les": "; pip install git+https://github.com/ChengUCB/les"}
"""Where packages are that no registry has."""


def _make_modules_of_mace_readable() -> None:
    """Allow its constants, which are pickles, and its first name of models with latent charges."""
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    try:
        from mace.modules import extensions, models
    except ImportError:  # older, or absent
        return
    if not hasattr(models, MACELES) and hasattr(extensions, MACELES):
        setattr(models, MACELES, getattr(extensions, MACELES))


def _torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise TorchModelError(
            f"{path}: files of torch.save need PyTorch (pip install torch); "
            ".npz files of a state dict do not"
        ) from error
    return torch


def _numpy(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(_array(tensor)) for name, tensor in state.items()}


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor


def _plain_tree(value: Any) -> Any:
    """Mappings and lists of plain numbers and texts out of whatever they hold."""
    if isinstance(value, Mapping):
        return {str(name): _plain_tree(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_tree(entry) for entry in value]
    value = _array(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _plain(value: Any) -> Any:
    """A number, truth value or text out of whatever holds it."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def _refuse_unsupported(module: Any) -> None:
    """Refuse what changes the model in a way that has no counterpart here."""
    if getattr(module, "use_so3", False):
        raise TorchModelError(f"harmonics of even parity (use_so3): {WITHOUT_COUNTERPART}")
    for block in module.interactions:
        kind = type(block).__name__
        if kind not in INTERACTIONS:
            what = "attention along edges" if "Att" in kind else "other interactions"
            raise TorchModelError(f"{what} ({kind}): {WITHOUT_COUNTERPART}")
    for product in module.products:
        irreps = product.linear.irreps_out
        if any(entry.ir.p != (-1) ** entry.ir.l for entry in irreps):
            raise TorchModelError(f"features of unnatural parity ({irreps}): {WITHOUT_COUNTERPART}")


def _backbone(module: Any) -> dict[str, Any]:
    """Arguments of the MACE constructor, read from the parts that it made."""
    radial, readout = module.radial_embedding, module.readouts[-1]
    heads = getattr(module, "heads", None) or ["Default"]
    orders = [len(_contractions(product)[0].weights) + 1 for product in module.products]
    neighbours = {float(_plain(block.avg_num_neighbors)) for block in module.interactions}
    widths = {tuple(block.conv_tp_weights.hs[1:-1]) for block in module.interactions}
    kinds = {type(block).__name__ for block in module.interactions[1:]}
    for name, found in (
        ("avg_num_neighbors", neighbours),
        ("radial_MLP", widths),
        ("interaction", kinds),
    ):
        if len(found) > 1:
            raise TorchModelError(f"{name}: expected the same in every layer, found {found}")
    energies = _numpy_of(module.atomic_energies_fn.atomic_energies)
    arguments = {
        "r_max": float(module.r_max),
        "num_bessel": int(radial.out_dim),
        "num_polynomial_cutoff": int(radial.cutoff_fn.p),
        "max_ell": int(module.spherical_harmonics.irreps_out.lmax),
        "interaction_first": type(module.interactions[0]).__name__,
        "interaction": type(module.interactions[-1]).__name__,
        "num_interactions": int(module.num_interactions),
        "hidden_irreps": str(module.products[0].linear.irreps_out),
        "correlation": orders[0] if len(set(orders)) == 1 else orders,
        "avg_num_neighbors": neighbours.pop(),
        "atomic_energies": (np.ravel(energies) if len(heads) == 1 else energies).tolist(),
        "radial_MLP": list(widths.pop()),
        "radial_type": _named(RADIAL_TYPES, radial.bessel_fn),
    }
    arguments |= _edge_irreps(module)
    if hasattr(readout, "hidden_irreps"):
        (hidden,) = readout.hidden_irreps
        arguments["MLP_irreps"] = f"{hidden.mul // len(heads)}x{hidden.ir}"
        arguments["gate"] = _gate(readout)
    return arguments


def _edge_irreps(module: Any) -> dict[str, Any]:
    """Features that are sent along edges, where they are not those of the layer's input.

    The maps tell, not attributes: released files lack some.
    """
    maps = [block.linear_up for block in module.interactions]
    if len(maps) > 1 and str(maps[-1].irreps_out) != str(maps[-1].irreps_in):
        return {"edge_irreps": str(maps[-1].irreps_out)}
    if str(maps[0].irreps_out) != str(maps[0].irreps_in):
        return {"edge_irreps": str(maps[0].irreps_out)}
    return {}


def _contractions(product: Any) -> list[Any]:
    contractions = getattr(product.symmetric_contractions, "contractions", None)
    if contractions is None:
        raise TorchModelError(
            "products in the layout of cuEquivariance; convert the model to e3nn first "
            "(mace_cueq_to_e3nn)"
        )
    return list(contractions)


def _gate(readout: Any) -> str:
    """Name of the activation of a nonlinear readout."""
    activations = [act for act in readout.non_linearity.acts if act is not None]
    if not activations:
        return "None"
    function = getattr(activations[0], "f", activations[0])
    return function.__name__.replace("swish", "silu")


def _backbone_options(module: Any, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    transform = getattr(module.radial_embedding, "distance_transform", None)
    last = int(module.num_interactions) - 1
    kind, first = type(module.readouts[-1]).__name__, module.interactions[0].linear_up
    kept = [product.linear.irreps_out.lmax for product in (module.products[0], module.products[-1])]
    heads = getattr(module, "heads", None) or ["Default"]
    options = {
        "pair_repulsion": hasattr(module, "pair_repulsion_fn"),
        "distance_transform": "None"
        if transform is None
        else _named(DISTANCE_TRANSFORMS, transform),
        "use_linear_final_readout": kind == "LinearReadoutBlock" and last > 0,
        "apply_cutoff": getattr(module, "apply_cutoff", True),
        "use_edge_irreps_first": str(first.irreps_out) != str(first.irreps_in),
        "use_agnostic_product": bool(getattr(module, "use_agnostic_product", False)),
        "use_last_readout_only": len(module.readouts) == 1 and last > 0,
        "keep_last_layer_irreps": last > 0 and kept[0] == kept[1] > 0,
        "heads": list(heads),
    }
    if hasattr(module, "joint_embedding"):
        options["embedding_specs"] = _plain_tree(module.embedding_specs)
        options["use_embedding_readout"] = hasattr(module, "embedding_readout")
    if kind in READOUT_CLASSES:
        options["readout_cls"] = kind
    for name in ("scale", "shift"):
        if f"scale_shift.{name}" in state:
            values = np.ravel(state[f"scale_shift.{name}"]).astype(np.float64)
            options[f"atomic_inter_{name}"] = (
                float(values[0]) if len(heads) == 1 else values.tolist()
            )
    return options


def _named_parts(module: Any, family: str, options: dict[str, Any]) -> dict[str, Any]:
    """Choices that are told by the classes of parts of a model with charges."""
    if family == "LocalSplitCharges":
        options["static_bond_transfer_block"] = type(module.lr_source_maps[0]).__name__
        options["oxidation_state_mixer"] = type(module.oxidation_state_mixer).__name__
    if family != "FixedPoint":
        return {}
    update = module.field_dependent_charges_map
    nonlinearity = getattr(update, "nonlinearity", None) or getattr(update, "activation", None)
    parts = {
        "type": type(update).__name__,
        "potential_embedding_cls": type(update.potential_embedding).__name__,
        "nonlinearity_cls": "NoNonLinearity"
        if nonlinearity is None
        else type(nonlinearity).__name__,
    }
    product = getattr(update, "product", None)
    if product is not None:
        parts["correlation"] = len(_contractions(product)[0].weights) + 1
        parts["use_sc"] = bool(product.use_sc)
    return {
        "fixedpoint_update_config": parts,
        "field_readout_config": {"type": type(module.local_electron_energy).__name__},
    }


_POLAR_ATTRIBUTES = (
    "kspace_cutoff_factor",
    "atomic_multipoles_max_l",
    "atomic_multipoles_smearing_width",
    "field_feature_max_l",
    "num_recursion_steps",
    "field_si",
    "include_electrostatic_self_interaction",
    "add_local_electron_energy",
)
_POLAR_UPDATE = "AgnosticEmbeddedOneBodyVariableUpdate"
_POLAR_READOUT = "OneBodyMLPFieldReadout"


def _polar_options(module: Any, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    parts = [(_POLAR_UPDATE, step) for step in module.field_dependent_charges_maps]
    for expected, part in [*parts, (_POLAR_READOUT, module.local_electron_energy)]:
        if type(part).__name__ != expected:
            raise TorchModelError(f"PolarMACE: expected {expected}, found {type(part).__name__}")
    options = {name: _plain(getattr(module, name)) for name in _POLAR_ATTRIBUTES}
    widths = [float(width) for width in module.field_feature_widths]
    norms = _norms_of(state, options["field_feature_max_l"], len(widths))
    return options | {"field_feature_widths": widths, "field_feature_norms": norms}


def _norms_of(state: Mapping[str, np.ndarray], max_l: int, count: int) -> list[float]:
    """Norms of field features by degree and width, out of those of all components."""
    starts = [
        degree**2 * count + index * (2 * degree + 1)
        for degree in range(max_l + 1)
        for index in range(count)
    ]
    return state["field_feature_norms"][starts].tolist()


def _numpy_of(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _named(names: Mapping[str, str], part: Any) -> str:
    name = type(part).__name__
    if name not in names:
        raise TorchModelError(f"expected one of {', '.join(names)}, found a {name}")
    return names[name]


_FACTOR_DIGITS = 12
"""Decimals kept of a cutoff factor, which is the quotient of two rounded numbers."""


def options_from_state(family: str, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Options in the configuration of a model with charges, as far as its buffers contain them.

    Args:
        family: name of the class.
        state: parameters and buffers by name.

    Returns:
        Multipole order and width, cutoff factor, formal charges, field features with their norms,
        and whether there are polarizability readouts; what the family does not have is left out.
    """
    max_l, (width,) = _basis(state, "coulomb_energy.density_basis")
    options: dict[str, Any] = {
        "atomic_multipoles_max_l": max_l,
        "atomic_multipoles_smearing_width": width,
    }
    highest_l, narrowest = max_l, width
    if "formal_charges.formal_charges" in state:
        options["atomic_formal_charges"] = state["formal_charges.formal_charges"].tolist()
    if family == "LocalSplitCharges":
        options["formal_charges_from_data"] = "atomic_formal_charges" not in options
        options["compute_polarizability"] = any("polarizability_readouts" in key for key in state)
        mixer_range = "oxidation_state_mixer.ox_embedding.oxidation_state_range"
        if mixer_range in state:
            options["oxidation_state_range"] = state[mixer_range].tolist()
    if family == "FixedPoint":
        feature_l, widths = _basis(state, "electric_potential_descriptor.feature_basis")
        highest_l, narrowest = max(highest_l, feature_l), min(narrowest, *widths)
        linear = "lr_source_maps.0.linear.weight" in state
        scaling = np.ones(len(state["atomic_numbers"]))
        for part in ("lr_source_maps.0", UPDATE):  # the same, if both have one
            scaling = state.get(f"{part}.atom_density_scale", scaling)
        options |= {
            "field_feature_max_l": feature_l,
            "field_feature_widths": widths,
            "field_feature_norms": _norms_of(state, feature_l, len(widths)),
            "fermi_level_offset": float(state["fermi_level_offset"]),
            "use_linear_local_charges": linear,
            "atom_density_scaling": scaling.tolist(),
        }
    factor = float(state["kspace_cutoff"]) / _basic_cutoff(narrowest, highest_l)
    options["kspace_cutoff_factor"] = round(factor, _FACTOR_DIGITS)
    return options


def _basis(state: Mapping[str, np.ndarray], name: str) -> tuple[int, list[float]]:
    """Highest degree and widths in Å of a basis of Gaussians."""
    max_l = state[f"{name}.cl_scale"].shape[1] - 1
    return max_l, [math.sqrt(value) for value in state[f"{name}.radial_spline.sigma2"]]
