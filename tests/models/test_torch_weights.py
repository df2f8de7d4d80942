"""Import of PyTorch weights: shapes of our parameters, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import pytest

from mace_scf_jax.models import build
from mace_scf_jax.models.torch_weights import WeightImportError, import_parameters
from mace_scf_jax.verification.models import reference_graph, reference_settings
from mace_scf_jax.verification.reference_file import read_reference_file

MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"


@pytest.mark.parametrize(
    "name", ["mace", "scale_shift_mace", "local_charges", "local_charges_density_blocks"]
)
def test_every_parameter_of_a_model_is_imported_in_its_shape(name):
    file = read_reference_file(MODELS / f"{name}.npz")
    settings = reference_settings(file.meta)
    imported = import_parameters(file.state, settings)
    graph = reference_graph(file, settings)
    expected = jax.eval_shape(build(settings).init, jax.random.key(0), graph)["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, imported)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, expected)


@pytest.fixture(scope="module")
def file():
    return read_reference_file(MODELS / "local_charges.npz")


@pytest.mark.parametrize(
    "name",
    [
        "node_embedding.linear.weight",
        "interactions.0.linear_up.weight",
        "interactions.1.skip_tp.weight",
        "interactions.1.conv_tp_weights.layer0.weight",
        "products.0.symmetric_contractions.contractions.1.weights.0",
        "products.1.linear.weight",
        "readouts.0.linear.weight",
        "readouts.1.linear_2.weight",
        "lr_source_maps.1.linear.weight",
    ],
)
def test_a_missing_weight_is_named(file, name):
    state = {key: value for key, value in file.state.items() if key != name}
    assert len(state) == len(file.state) - 1
    with pytest.raises(WeightImportError, match=f"state dict has no '{name}'"):
        import_parameters(state, reference_settings(file.meta))


def test_weights_of_a_wrong_size_are_named(file):
    name = "interactions.1.linear.weight"
    state = {**file.state, name: file.state[name][:-1]}
    found = len(state[name])
    with pytest.raises(
        WeightImportError, match=rf"interactions\.1\.linear: expected {found + 1} .*found {found}"
    ):
        import_parameters(state, reference_settings(file.meta))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_irreps": "5x0e + 5x1o"},
        {"max_ell": 2},
        {"correlation": 2},
        {"num_radial_basis": 5},
        {"elements": (1, 8)},
        {"MLP_irreps": "4x0e"},
        {"radial_MLP": (8, 16)},
        {"radial_MLP": (16, 16, 16)},
        {"num_interactions": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_weights_of_another_model_are_refused(file, changes):
    settings = reference_settings(file.meta)
    energies = settings.atomic_energies[: len(changes.get("elements", settings.elements))]
    other = dataclasses.replace(
        settings,
        backbone=dataclasses.replace(settings.backbone, **changes),
        atomic_energies=energies,
    )
    with pytest.raises(WeightImportError):
        import_parameters(file.state, other)
