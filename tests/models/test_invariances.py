"""Outputs of whole models under rotation, translation, permutation, padding and batching."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_models import (
    CHARGED_FAMILIES,
    RESPONDING_FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    assert_close,
    batch_of,
    molecule,
    periodic,
    random_parameters,
    random_rotation,
    slab,
    structure,
    tiny_settings,
)

from mace_scf_jax.data.batching import required_sizes
from mace_scf_jax.models import (
    FAMILIES,
    OUTPUTS,
    build,
    evaluate,
)
from mace_scf_jax.predict.prediction import split_outputs

KINDS = [molecule(), periodic(), slab()]
ROUND_OFF = 1e-11
"""Of sums in another order, relative to the largest number."""

NOISE = {"charge_residual", "solver_steps", "solver_status"}
"""Outputs that say how a solution was found and how large the round-off is."""

DEGREE_ONE = [3, 1, 2]
"""Where x, y, z stand among the multipoles Q, d_y, d_z, d_x."""


def families(*quick):
    """What holds for a single step of models that are solved for is tested with them."""
    return [
        family if family in quick else pytest.param(family, marks=pytest.mark.slow)
        for family in sorted({*FAMILIES} - {*SELF_CONSISTENT_FAMILIES})
    ]


@pytest.fixture(
    scope="module",
    params=families(
        "ScaleShiftMACE", "LocalCharges", "LocalSplitCharges", "MACEQEq", "EnergyFunctional"
    ),
)
def model(request):
    """A small model of each family, compiled for each batch size only once."""
    settings = tiny_settings(request.param)
    module = build(settings)
    structures = [structure(atoms, settings) for atoms in KINDS]
    params = random_parameters(module, batch_of(structures))
    compiled = jax.jit(lambda graph: evaluate(module, params, graph, forces=True, stress=True))
    return SimpleNamespace(
        settings=settings,
        structures=structures,
        graph=batch_of(structures),
        evaluate=lambda graph: split_outputs(jax.device_get(compiled(graph)), graph),
    )


def assert_same(actual, expected, tolerance=ROUND_OFF):
    """Predictions for the same structures, output by output."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in other.keys() - NOISE:
            assert_close(one[name], other[name], tolerance, name)


def test_every_output_is_there_and_finite(model):
    outputs = {"energy", "node_energy", "contributions", "interaction_energy"}
    outputs |= {"forces", "stress", "virials"}
    if model.settings.backbone.least_distance > 0.0:
        outputs |= {"shortest_distance"}
    if model.settings.electrostatics is not None:
        outputs |= {"multipoles", "charges", "dipole", "total_charge", "electrostatic_energy"}
    if model.settings.family == "LocalSplitCharges":
        outputs |= {"polarizability"}
    if model.settings.family == "PolarMACE":
        outputs |= {"field_energy", "local_multipoles", "spin_multipoles", "spins"}
    if model.settings.family == "MACEQEq":
        outputs |= {"equilibration_energy", "electronegativity", "hardness", "chemical_potential"}
        outputs |= {"charge_residual"}
    if model.settings.family == "EnergyFunctional":
        outputs |= {"functional_energy", "chemical_potential"} | NOISE
    for prediction in model.evaluate(model.graph):
        assert set(prediction) == outputs
        for name, value in prediction.items():
            assert np.all(np.isfinite(value)), name
            assert np.any(value != 0.0) or name in NOISE, name


@pytest.mark.parametrize(
    ("rotation", "graphs"),
    [
        (random_rotation(0), (0, 1)),
        (random_rotation(1, improper=True), (0, 1)),
        # the open direction of a slab is z
        (Rotation.from_euler("z", 1.1).as_matrix(), (0, 1, 2)),
    ],
    ids=["rotation", "rotation and inversion", "rotation about z"],
)
def test_rotation(model, rotation, graphs):
    graph = model.graph
    rotated = graph.replace(
        positions=graph.positions @ rotation.T,
        cell=graph.cell @ rotation.T,
        external_field=graph.external_field @ rotation.T,
    )
    straight, turned = model.evaluate(graph), model.evaluate(rotated)
    for index in graphs:
        expected = dict(straight[index])
        for name in ("forces", "dipole"):
            if name in expected:
                expected[name] = expected[name] @ rotation.T
        for name in ("stress", "virials", "polarizability"):
            if name in expected:
                expected[name] = rotation @ expected[name] @ rotation.T
        for name in ("multipoles", "local_multipoles", "spin_multipoles"):
            if expected.get(name, np.zeros((0, 1))).shape[1] > 1:
                multipoles = expected[name].copy()
                multipoles[:, DEGREE_ONE] = multipoles[:, DEGREE_ONE] @ rotation.T
                expected[name] = multipoles
        assert_same([turned[index]], [expected])


def test_translation(model):
    # In a field the energy contains D·E, and the dipole of a charged structure moves with it.
    # The correction of a charged slab refers to z = 0: motion along z changes its energy, motion in
    # the plane what shears it.
    shifts = np.array([[0.7, -5.3, 1.9], [0.7, -5.3, 1.9], [0.7, -5.3, 0.0], [0.0, 0.0, 0.0]])
    graph = model.graph.replace(external_field=jnp.zeros_like(model.graph.external_field))
    moved = graph.replace(positions=graph.positions + shifts[np.asarray(graph.atom_graph)])
    for shift, actual, expected in zip(
        shifts[:3], model.evaluate(moved), model.evaluate(graph), strict=True
    ):
        if "dipole" in expected:
            expected["dipole"] = expected["dipole"] + expected["total_charge"] * shift
            if shift[2] == 0.0:
                for name in ("stress", "virials"):
                    del actual[name], expected[name]
        assert_same([actual], [expected])


@pytest.mark.parametrize(
    "model",
    sorted({*CHARGED_FAMILIES} - {*RESPONDING_FAMILIES}),
    indirect=True,
)
def test_an_external_field_adds_the_energy_of_the_dipole(model):
    graph = model.graph
    free = model.evaluate(graph.replace(external_field=jnp.zeros_like(graph.external_field)))
    in_field = model.evaluate(graph)
    for index, (one, other) in enumerate(zip(free, in_field, strict=True)):
        field = np.asarray(graph.external_field[index])
        assert_close(other["energy"], one["energy"] + one["dipole"] @ field, 1e-14)
    difference = in_field[0]["energy"] - free[0]["energy"]
    assert abs(difference) > 1e-3


def test_permutation_of_atoms(model):
    order = np.array([3, 0, 4, 2, 1])
    permuted = batch_of([structure(atoms[order], model.settings) for atoms in KINDS])
    for actual, expected in zip(model.evaluate(permuted), model.evaluate(model.graph), strict=True):
        expected = {
            name: value[order] if OUTPUTS[name].per_atom else value
            for name, value in expected.items()
        }
        assert_same([actual], [expected])


def test_order_of_structures(model):
    backwards = model.evaluate(batch_of(model.structures[::-1]))
    assert_same(backwards[::-1], model.evaluate(model.graph))


def test_content_of_padding(model):
    graph, rng = model.graph, np.random.default_rng(0)
    padding = ~graph.atom_mask
    assert np.any(padding)
    rubbish = graph.replace(
        positions=jnp.where(
            padding[:, None], rng.normal(size=graph.positions.shape), graph.positions
        ),
        species=jnp.where(padding, 1, graph.species),
        external_field=jnp.where(graph.graph_mask[:, None], graph.external_field, 7.0),
        k_indices=jnp.where(graph.k_mask[..., None], graph.k_indices, 3),
    )
    assert_same(model.evaluate(rubbish), model.evaluate(graph), tolerance=1e-14)


@pytest.mark.parametrize("model", families("LocalCharges", "MACEQEq"), indirect=True)
@pytest.mark.parametrize("layout", ["flat", pytest.param("per_atom", marks=pytest.mark.slow)])
def test_amount_of_padding_and_layout_of_the_edges(model, layout):
    sizes = required_sizes(model.structures, layout)
    larger = {"atoms": sizes.atoms + 5, "graphs": sizes.graphs + 2, "slots": sizes.slots + 3}
    larger["kvectors"] = sizes.kvectors + 7
    if layout == "per_atom":
        larger["neighbours_per_atom"] = sizes.neighbours_per_atom + 2
        larger["edges"] = larger["atoms"] * larger["neighbours_per_atom"]
    else:
        larger["edges"] = sizes.edges + 11
    roomy = batch_of(model.structures, dataclasses.replace(sizes, **larger))
    assert_same(model.evaluate(roomy), model.evaluate(model.graph))


def test_a_structure_alone_and_in_a_batch(model):
    # in the sizes of the whole batch, to compile nothing new
    sizes = required_sizes(model.structures).rounded()
    expected = model.evaluate(model.graph)
    for index, entry in enumerate(model.structures):
        assert_same(model.evaluate(batch_of([entry], sizes)), [expected[index]])


@pytest.mark.parametrize("model", ["ScaleShiftMACE"], indirect=True)
def test_supercell(model):
    both = [periodic(), periodic().repeat((2, 1, 1))]
    single, double = model.evaluate(batch_of([structure(atoms, model.settings) for atoms in both]))
    assert_close(double["energy"], 2 * single["energy"], ROUND_OFF)
    assert_close(double["stress"], single["stress"], ROUND_OFF)
    assert_close(double["forces"], np.tile(single["forces"], (2, 1)), ROUND_OFF)
