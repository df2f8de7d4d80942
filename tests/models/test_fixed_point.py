"""Fixed-point models: symmetries, readouts, forces of the solved state, bad settings."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_models import (
    BATCH,
    LEVELS,
    NUM_ATOMS,
    batch,
    model,
    one_step,
    random_multipoles,
    settings,
)
from tiny_models import molecule, tiny_backbone

from mace_scf_jax.models import FamilySettings, ModelSettings, build
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    solved_observables,
)
from mace_scf_jax.scf import LinearMixing, SolverStatus

SCALED = {
    "update": "OneBodyScaledDPNonLinearUpdate",
    "nonlinearity": "SkipMLPLinearity",
    "atom_density_scaling": (1.0, 0.5),
}


def rotated(graph, multipoles, rotation):
    turned = graph.replace(
        positions=graph.positions @ rotation.T,
        cell=graph.cell @ rotation.T,
        external_field=graph.external_field @ rotation.T,
    )
    dipoles = multipoles[:, jnp.asarray([3, 1, 2])] @ rotation.T
    return turned, jnp.concatenate([multipoles[:, :1], dipoles[:, jnp.asarray([1, 2, 0])]], axis=-1)


def test_rotations():
    module, params = model(
        update="ManyBodyUpdate",
        nonlinearity="MLPNonLinearity",
        field_readout="ManyBodyChargesFieldReadout",
    )
    # the molecule only: a cell would have to be turned with its reciprocal indices
    graph = batch(molecule())
    multipoles = random_multipoles(graph)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0])
    step = jax.jit(lambda g, p: one_step(module, params, g, p))
    answer, outputs = step(graph, multipoles)
    turned_answer, turned_outputs = step(*rotated(graph, multipoles, rotation))
    _, expected = rotated(graph, answer, rotation)
    np.testing.assert_allclose(turned_answer, expected, atol=1e-11)
    for name in ("energy", "field_energy", "electrostatic_potentials"):
        np.testing.assert_allclose(turned_outputs[name], outputs[name], rtol=1e-10, atol=1e-10)


def test_padding_atoms_and_graphs_get_nothing():
    module, params = model()
    answer, outputs = jax.jit(functools.partial(one_step, module, params))(
        BATCH, random_multipoles(BATCH)
    )
    assert np.any(np.abs(answer[:NUM_ATOMS]) > 1e-3)
    np.testing.assert_array_equal(answer[NUM_ATOMS:], 0.0)
    for name in ("energy", "field_energy", "dipole", "total_charge"):
        np.testing.assert_array_equal(outputs[name][2:], 0.0)
    for name in ("node_energy", "multipoles", "local_multipoles", "electrostatic_potentials"):
        np.testing.assert_array_equal(outputs[name][NUM_ATOMS:], 0.0)


@pytest.mark.parametrize(
    ("changes", "affine"),
    [({}, True), (SCALED, False)],
    ids=["affine", "nonlinear"],
)
def test_the_default_update_is_affine(changes, affine):
    """The midpoint of two states goes to the midpoint of their images."""
    module, params = model(**changes)
    step = jax.jit(lambda p: one_step(module, params, BATCH, p)[0])
    first, second = random_multipoles(BATCH, 1), random_multipoles(BATCH, 2)
    deviation = step(0.5 * (first + second)) - 0.5 * (step(first) + step(second))
    assert settings(**changes).own.is_affine is affine
    assert bool(np.max(np.abs(deviation)) < 1e-12) is affine


def readout_energies(readout, scale):
    """Field energies with all solved quantities scaled; the local multipoles are zero."""
    module, params = model(field_readout=readout)
    params = dict(params)
    for name in params:
        if name.startswith("multipole_readout"):
            params[name] = jax.tree.map(jnp.zeros_like, params[name])

    def energies(scale):
        local = module.apply({"params": params}, BATCH, method="local")
        features = jnp.asarray(np.random.default_rng(3).normal(size=(BATCH.num_atoms, 8)))
        multipoles = scale * random_multipoles(BATCH)
        return module.apply(
            {"params": params}, local, multipoles, scale * features, method="observables"
        )["field_energy"][:2]

    return jax.jit(jax.vmap(energies))(jnp.asarray(scale))


@pytest.mark.parametrize(
    ("readout", "order"),
    [
        ("NullFieldReadout", 0),
        ("LinearChargesEnergyReadout", 1),
        ("StrictQuadraticFieldEnergyReadout", 2),
        ("QuadraticChargesEnergyReadout", 2),
    ],
)
def test_orders_of_readouts(readout, order):
    """How energies scale with multipoles and potential; random biases are zero in the models."""
    low, middle, high = readout_energies(readout, [1.0, 2.0, 3.0])
    if order == 0:
        np.testing.assert_array_equal(high, 0.0)
        return
    # a polynomial of that order, from finite differences
    zero = readout_energies(readout, [0.0])[0]
    curvature, bend = high - 2 * middle + low, high - 3 * middle + 3 * low - zero
    np.testing.assert_allclose(bend, 0.0, atol=1e-10)
    assert np.all((np.abs(curvature) > 1e-6) == (order == 2))


def test_the_energy_of_a_readout_can_be_left_out():
    readout = "StrictQuadraticFieldEnergyReadout"
    multipoles = random_multipoles(BATCH)
    with_energy, without = (
        jax.jit(functools.partial(one_step, *model(**choices)))(BATCH, multipoles)[1]
        for choices in ({"field_readout": readout}, {"include_field_energy": False})
    )
    np.testing.assert_array_equal(without["field_energy"], 0.0)
    difference = with_energy["energy"] - without["energy"]
    np.testing.assert_allclose(difference, with_energy["field_energy"], atol=1e-10)
    assert np.all(np.abs(difference[:2]) > 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("constant_charge", [False, True])
def test_forces_are_derivatives_of_the_solved_energy(constant_charge):
    """With the response of the multipoles, in a batch with a charged molecule and a crystal."""
    module, params = model()
    cycle = LinearMixing(max_steps=150, mixing=0.7, tolerance=1e-13)
    variables = {"params": params}
    # charges within reach of the few steps, because the response of a random model is weak
    local = jax.jit(lambda graph: module.apply(variables, graph, method="local"))(BATCH)
    charges = BATCH.sum_atoms(local.multipoles[:, 0]) + jnp.where(BATCH.graph_mask, 1e-3, 0.0)

    def energy(positions):
        graph = BATCH.replace(positions=positions, total_charge=charges)
        local = module.apply(variables, graph, method="local")
        problem = fixed_point_problem(module, params, local, constant_charge=constant_charge)
        solution = cycle.find(problem, graph.to_slots(local.multipoles), LEVELS)
        outputs = solved_observables(module, params, local, solution)
        return jnp.sum(outputs["energy"]), outputs

    gradient, outputs = jax.jit(jax.grad(energy, has_aux=True))(BATCH.positions)
    np.testing.assert_array_equal(outputs["scf_status"], SolverStatus.CONVERGED)
    if constant_charge:
        np.testing.assert_allclose(outputs["total_charge"], charges, atol=1e-12)
    else:
        np.testing.assert_array_equal(outputs["fermi_level"], LEVELS)
    direction = np.zeros(BATCH.positions.shape)
    direction[:NUM_ATOMS] = np.random.default_rng(5).normal(size=(NUM_ATOMS, 3))
    direction = jnp.asarray(direction)
    value, h = jax.jit(lambda x: energy(x)[0]), 1e-4
    ahead, behind = (value(BATCH.positions + s * h * direction) for s in (1.0, -1.0))
    expected = (ahead - behind) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": "OneBodyVariableUpdat"}, "did you mean 'OneBodyVariableUpdate'"),
        ({"potential_embedding": "Linear"}, "unknown potential_embedding 'Linear'"),
        ({"nonlinearity": "MLPNonLinear"}, "did you mean 'MLPNonLinearity'"),
        ({"field_readout": "NoReadout"}, "unknown field_readout 'NoReadout'"),
        ({"field_feature_norms": (1.0, 0.0)}, "field_feature_norms: expected positive numbers"),
        ({"fermi_level_offset": np.nan}, r"fermi_level_offset: expected a number \(eV\)"),
        ({"correlation": 5}, "correlation: expected 1, 2, 3 or 4, found 5"),
        ({"linear_local_multipoles": True}, "need a scale for every element"),
        ({"update": "OneBodyScaledNonLinearUpdate"}, "need a scale for every element"),
    ],
)
def test_choices_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def without_features(chosen):
    electrostatics = dataclasses.replace(chosen.electrostatics, features=None)
    return dataclasses.replace(chosen, electrostatics=electrostatics)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (dataclasses.replace(settings(), own=FamilySettings()), "needs FixedPointSettings"),
        (without_features(settings()), "needs electrostatic settings with field features"),
        (settings(field_feature_norms=(1.0,)), "expected 4 numbers, one for each degree up to 1"),
        (settings(atom_density_scaling=(1.0,)), "one number for each of the elements"),
        (
            dataclasses.replace(
                settings(update="ManyBodyUpdate"), backbone=tiny_backbone(max_ell=1)
            ),
            "max_ell: many-body updates and readouts need edge harmonics up to degree 2, found 1",
        ),
        (
            dataclasses.replace(settings(**SCALED), backbone=tiny_backbone(hidden_irreps="4x0e")),
            r"OneBodyScaledDPNonLinearUpdate needs vectors \(1o\), found scalars only",
        ),
        (dataclasses.replace(settings(), family="MACE"), "has no settings of its own"),
    ],
)
def test_models_that_do_not_fit_together(chosen, message):
    with pytest.raises(ValueError, match=message):
        build(chosen)


def test_settings_survive_plain_data():
    chosen = settings(atom_density_scaling=(0.5, 2.0), linear_local_multipoles=True)
    assert ModelSettings.from_dict(chosen.to_dict()) == chosen
