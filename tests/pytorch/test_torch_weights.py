"""Weights from PyTorch state dicts and back: shapes, exactness, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_models import random_parameters, tiny_settings

from mace_scf_jax.models import build
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.verification.models import reference_graph, reference_settings
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.weights import (
    WeightImportError,
    export_weights,
    import_parameters,
)

MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"


FILES = sorted(MODELS.glob("*.npz"))
UNUSED = {
    "qeq_default": 62,  # readouts of the hardness, which is not trained
    "qeq_realspace": 62,
    "split_charges_default": 8,  # monopoles of the multipole readouts
    "split_charges_product_mixer": 12,
    "split_charges_nofield_per_atom": 12 + 2 * 64 * 48,  # and couplings that reach no scalar
}
"""Weights that the reference has and never uses."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_weights_come_back_bit_by_bit(path):
    file = read_reference_file(path)
    settings = reference_settings(file.meta)
    exported = export_weights(import_parameters(file.state, settings), settings)
    unused = 0
    for name, values in exported.items():
        expected = file.state[name]
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
        used = ~np.isnan(values)
        unused += np.sum(~used)
        np.testing.assert_array_equal(values[used], expected[used], err_msg=name)
    assert unused == UNUSED.get(path.stem, 0)
    learned = ("weight", "bias", "weights_max")
    left_out = {
        name
        for name in file.state.keys() - exported.keys()
        if file.state[name].size > 0 and name.split(".")[-1] in learned
    }
    assert not left_out


@pytest.mark.parametrize(
    "changes",
    [
        {
            "update": "ManyBodyUpdate",
            "correlation": 2,
            "nonlinearity": "SkipMLPLinearity",
            "field_readout": "ManyBodyChargesReadout",
        },
        {
            "update": "OneBodyScaledNonLinearUpdate",
            "nonlinearity": "MLPNonLinearity",
            "field_readout": "QuadraticChargesEnergyReadout",
            "atom_density_scaling": (0.5, 1.0, 0.8),
        },
        {
            "update": "OneBodyScaledDPNonLinearUpdate",
            "nonlinearity": "ShallowNonLinearity",
            "potential_embedding": "TanhPotentialEmbedding",
            "field_readout": "LinearChargesEnergyReadout",
            "linear_local_multipoles": True,
            "atom_density_scaling": (0.5, 1.0, 0.8),
        },
        {"update": "ManyBodyUpdate", "field_readout": "ManyBodyChargesFieldReadout"},
    ],
    ids=lambda changes: changes["field_readout"],
)
def test_every_choice_of_a_fixed_point_model_goes_there_and_back(changes):
    file = read_reference_file(MODELS / "fixed_point_default.npz")
    settings = reference_settings(file.meta)
    choices = dataclasses.replace(settings.own, **changes)
    settings = dataclasses.replace(settings, own=choices)
    parameters = random_parameters(build(settings), reference_graph(file, settings))
    exported = export_weights(parameters, settings)
    assert not any(np.isnan(values).any() for values in exported.values())
    returned = import_parameters(exported, settings)
    assert jax.tree.structure(returned) == jax.tree.structure(parameters)
    jax.tree.map(np.testing.assert_array_equal, returned, parameters)


def test_a_family_that_pytorch_lacks_cannot_be_exported():
    settings = tiny_settings("EnergyFunctional")
    with pytest.raises(TorchConfigurationError, match="no such family; they have MACE, "):
        export_weights({}, settings)


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
        WeightImportError,
        match=rf"{name}: expected the shape \({found + 1},\), found \({found},\)",
    ):
        import_parameters(state, reference_settings(file.meta))


def test_a_bias_that_the_model_does_not_have(file):
    name = "interactions.1.linear_up.bias"
    state = {**file.state, name: np.ones(6)}
    with pytest.raises(WeightImportError, match=f"'{name}', but the model has no bias there"):
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
