"""Charge equilibration: closed forms, minima, both solvers, derivatives to second order."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    batch_of,
    molecule,
    periodic,
    random_parameters,
    slab,
    structure,
    tiny_backbone,
)

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.electrostatics import ElectrostaticsSettings, prepare, system_energy
from mace_scf_jax.models import ModelSettings, build, check_inputs, evaluate
from mace_scf_jax.models.families.qeq.model import MACEQEq, equilibrate, on_site_energy
from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
from mace_scf_jax.scf import LinearSolver
from mace_scf_jax.units import COULOMB_CONSTANT

WIDTH = 0.8
SLOTS = 7
"""Two of them are empty."""

BOUNDARIES = {
    "realspace": (molecule, False),
    "molecule_in_box": (functools.partial(molecule, box=7.0), False),
    "slab": (slab, True),
    "pbc": (periodic, True),
}


def electrostatics(boundary, **changes):
    values = {"max_l": 0, "smearing_width": WIDTH, "kspace_cutoff_factor": 0.9}
    return ElectrostaticsSettings(boundary=boundary, **(values | changes))


def system(boundary, **changes):
    """Five atoms, their electronegativities and hardnesses, with two empty slots."""
    settings = electrostatics(boundary, **changes)
    make, _ = BOUNDARIES[boundary]
    atoms, rng = make(), np.random.default_rng(0)
    cell = np.array(atoms.cell)
    indices = np.zeros((0, 3), dtype=int)
    if boundary != "realspace":
        indices = half_space_indices(cell, settings.kspace_cutoff)
    mask = np.arange(SLOTS) < len(atoms)
    prepared = prepare(
        jnp.asarray(np.resize(atoms.positions, (SLOTS, 3))),
        jnp.asarray(mask),
        jnp.asarray(cell),
        jnp.asarray(atoms.pbc),
        jnp.asarray(indices),
        jnp.ones(len(indices), dtype=bool),
        settings=settings,
    )
    electronegativity = jnp.asarray(rng.normal(size=SLOTS) * mask)
    hardness = jnp.asarray(rng.uniform(1.0, 5.0, size=SLOTS) * mask)
    return prepared, electronegativity, hardness


@functools.cache
def solved(boundary, solver, total=0.4):
    inputs = system(boundary)
    solve = jax.jit(functools.partial(equilibrate, solver=solver))
    return solve(*inputs, jnp.asarray(total))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_charges_minimise_the_energy(boundary):
    inputs = system(boundary)
    minimum, energy = solved(boundary, LinearSolver.DENSE)

    @jax.jit
    def derivatives(charges):
        def function(charges):
            dense = charges[:, None]
            return system_energy(inputs[0], dense) + on_site_energy(*inputs, dense)

        return function(charges), jax.grad(function)(charges), jax.hessian(function)(charges)

    value, gradient, curvature = derivatives(minimum.unknowns)
    np.testing.assert_allclose(energy, value, rtol=1e-13)
    np.testing.assert_allclose(jnp.sum(minimum.unknowns), 0.4, atol=1e-14)
    np.testing.assert_array_equal(minimum.unknowns[5:], 0.0)
    np.testing.assert_allclose(gradient[:5], np.full(5, minimum.multiplier), atol=1e-12)
    neutral = np.linalg.svd(np.ones((1, 5)))[2][1:]
    assert np.linalg.eigvalsh(neutral @ curvature[:5, :5] @ neutral.T)[0] > 0.9


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_matrix_free_equals_dense(boundary):
    dense, dense_energy = solved(boundary, LinearSolver.DENSE)
    iterated, iterated_energy = solved(boundary, LinearSolver.CONJUGATE_GRADIENTS)
    np.testing.assert_allclose(iterated.unknowns, dense.unknowns, atol=1e-10)
    np.testing.assert_allclose(iterated_energy, dense_energy, rtol=1e-12)
    assert max(dense.residual, iterated.residual) < 1e-9


def test_two_atoms_in_closed_form():
    settings = electrostatics("realspace")
    distance, total = 1.7, 0.3
    chi, eta = np.array([0.4, -1.1]), np.array([3.0, 5.0])
    prepared = prepare(
        jnp.asarray([[0.0, 0.0, 0.0], [0.0, distance, 0.0]]),
        jnp.ones(2, dtype=bool),
        jnp.eye(3),
        jnp.zeros(3, dtype=bool),
        jnp.zeros((0, 3), dtype=int),
        jnp.zeros(0, dtype=bool),
        settings=settings,
    )
    arrays = prepared, jnp.asarray(chi), jnp.asarray(eta), jnp.asarray(total)
    minimum, energy = jax.jit(functools.partial(equilibrate, solver=LinearSolver.DENSE))(*arrays)
    itself = COULOMB_CONSTANT / (math.sqrt(math.pi) * WIDTH)
    pair = COULOMB_CONSTANT * math.erf(distance / (2.0 * WIDTH)) / distance
    first = chi[1] - chi[0] + total * (eta[1] + itself - pair)
    first /= eta.sum() + 2.0 * itself - 2.0 * pair
    charges = np.array([first, total - first])
    np.testing.assert_allclose(minimum.unknowns, charges, rtol=1e-12)
    expected = chi @ charges + 0.5 * (eta + itself) @ charges**2 + pair * charges.prod()
    np.testing.assert_allclose(energy, expected, rtol=1e-12)
    multiplier = chi[0] + (eta[0] + itself) * charges[0] + pair * charges[1]
    np.testing.assert_allclose(minimum.multiplier, multiplier, rtol=1e-12)


@pytest.mark.parametrize("solver", LinearSolver)
def test_derivatives_by_total_charge_and_electronegativity(solver):
    prepared, electronegativity, hardness = system("realspace")

    def energy(electronegativity, total):
        return equilibrate(prepared, electronegativity, hardness, total, solver=solver)[1]

    total = jnp.asarray(0.4)
    minimum, _ = solved("realspace", solver)
    by_chi, by_total = jax.jit(jax.grad(energy, argnums=(0, 1)))(electronegativity, total)
    np.testing.assert_allclose(by_chi, minimum.unknowns, atol=1e-11)
    np.testing.assert_allclose(by_total, minimum.multiplier, rtol=1e-10)
    # response of the charges: symmetric, negative, and it keeps the total
    response = jax.jit(jax.jacrev(jax.grad(energy)))(electronegativity, total)
    np.testing.assert_allclose(response, response.T, atol=1e-10)
    np.testing.assert_allclose(jnp.sum(response, axis=0), 0.0, atol=1e-10)
    assert np.linalg.eigvalsh(response)[-1] < 1e-9


def test_without_self_interaction_a_soft_pair_has_no_minimum():
    prepared, electronegativity, _ = system("realspace", include_self_interaction=False)
    soft = jnp.where(prepared.atom_mask, 0.1, 0.0)
    solve = jax.jit(functools.partial(equilibrate, solver=LinearSolver.DENSE))
    minimum, _ = solve(prepared, electronegativity, soft, jnp.asarray(0.0))
    assert np.all(np.isnan(minimum.unknowns[:5]))


# The whole model.

TRAINED = ChargeEquilibrationSettings(
    read_enegs=True, read_hardness=True, train_hardness=True, default_hardness=3.0
)


def settings_of(**changes):
    return ModelSettings(
        family="MACEQEq",
        backbone=tiny_backbone(scalar_last_layer=False),
        atomic_energies=(-13.0, -430.0),
        electrostatics=electrostatics("mixed_periodic"),
        own=dataclasses.replace(TRAINED, **changes),
    )


@pytest.fixture(scope="module")
def batch():
    """An open, a periodic and a slab structure, with enegs and hardness."""
    settings, rng = settings_of(), np.random.default_rng(1)
    structures = []
    for atoms, charge in ((molecule(), 1.0), (periodic(), 0.0), (slab(), 0.0)):
        atoms.info["total_charge"] = charge
        atoms.set_array("enegs", rng.normal(size=len(atoms)))
        atoms.set_array("hardness", rng.uniform(20.0, 30.0, size=len(atoms)))
        structures.append(structure(atoms, settings))
    return batch_of(structures)


@pytest.fixture(scope="module")
def params(batch):
    return random_parameters(MACEQEq(settings_of()), batch)


def outputs(params, graph, **changes):
    stress = changes.pop("stress", False)
    return evaluate(MACEQEq(settings_of(**changes)), params, graph, stress=stress)


def test_forces_and_stress_are_derivatives_of_the_energy(batch, params):
    predict = jax.jit(functools.partial(outputs, stress=True))
    energy = jax.jit(lambda graph: MACEQEq(settings_of()).apply({"params": params}, graph))
    predicted = predict(params, batch)
    assert float(jnp.max(jnp.abs(predicted["multipoles"]))) > 0.05
    np.testing.assert_allclose(
        predicted["total_charge"][:3], batch.total_charge[:3], rtol=0.0, atol=1e-14
    )
    rng, step = np.random.default_rng(2), 1e-4
    direction = rng.normal(size=batch.positions.shape)
    bend = rng.normal(size=batch.cell.shape)

    def moved(size):
        shifted = batch.replace(positions=batch.positions + size * direction)
        bent = batch.strained(size * jnp.asarray(bend))
        return [np.asarray(energy(graph)["energy"])[:3] for graph in (shifted, bent)]

    sizes = (step, -step, 2.0 * step, -2.0 * step)
    along, strained = (
        (8.0 * (one - minus_one) - (two - minus_two)) / (12.0 * step)
        for one, minus_one, two, minus_two in zip(*map(moved, sizes), strict=True)
    )
    work = batch.sum_atoms(predicted["forces"] * direction)[:3].sum(axis=1)
    np.testing.assert_allclose(-work, along, rtol=1e-6)
    virial = np.sum(np.asarray(predicted["virials"]) * bend, axis=(1, 2))[:3]
    np.testing.assert_allclose(-virial, strained, rtol=1e-6)


def test_matrix_free_model_equals_dense(batch, params):
    dense, iterated = (
        jax.jit(functools.partial(outputs, dense_max_atoms=size))(params, batch)
        for size in (256, 0)
    )
    for name in ("energy", "forces", "multipoles", "dipole"):
        np.testing.assert_allclose(iterated[name], dense[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dense_max_atoms", [256, pytest.param(0, marks=pytest.mark.slow)])
def test_losses_of_forces_and_charges_have_the_gradient_of_finite_differences(
    batch, params, dense_max_atoms
):
    def loss(params):
        predicted = outputs(params, batch, dense_max_atoms=dense_max_atoms)
        return jnp.sum(predicted["forces"] ** 2) + 30.0 * jnp.sum(predicted["multipoles"] ** 3)

    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)

    def along(size):
        return loss(jax.tree.map(lambda leaf, way: leaf + size * way, params, direction))

    value, slope = jax.jit(jax.value_and_grad(along))(jnp.asarray(0.0))
    assert np.isfinite(value)
    step = 1e-6
    compiled = jax.jit(along)
    expected = (compiled(jnp.asarray(step)) - compiled(jnp.asarray(-step))) / (2.0 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_graphs_do_not_know_each_other(batch, params):
    predict = jax.jit(outputs)
    shift = jnp.where(batch.atom_graph == 1, 0.2, 0.0)[:, None] * jnp.asarray([1.0, 0.0, 0.5])
    scatter = batch.species[:, None].astype(shift.dtype) * shift
    before, after = (
        predict(params, graph)
        for graph in (batch, batch.replace(positions=batch.positions + scatter))
    )
    others = np.asarray(batch.atom_graph) != 1
    np.testing.assert_array_equal(after["multipoles"][others], before["multipoles"][others])
    assert np.any(after["multipoles"][~others] != before["multipoles"][~others])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_hardness_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match="default_hardness: expected a positive number"):
        ChargeEquilibrationSettings(default_hardness=value)


def test_settings_survive_the_model_file():
    settings = settings_of(dense_max_atoms=100)
    assert ModelSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"hardness": [1.0] * 5}, "reads 'enegs' of every atom from the data, found none"),
        ({"enegs": [1.0] * 5}, "reads 'hardness' of every atom from the data, found none"),
        (
            {"enegs": [1.0] * 5, "hardness": [1.0, 2.0, 0.0, 1.0, -1.0]},
            "found hardness 0 eV/e² of atom 2, expected positive numbers",
        ),
    ],
)
def test_structures_without_what_is_read_are_refused(arrays, message):
    atoms = molecule()
    for name, values in arrays.items():
        atoms.set_array(name, np.array(values))
    with pytest.raises(DataError, match=message):
        check_inputs(settings_of(), from_atoms(atoms))
    check_inputs(settings_of(read_enegs=False, read_hardness=False), from_atoms(atoms))


def test_charges_have_no_higher_multipoles():
    settings = dataclasses.replace(settings_of(), electrostatics=electrostatics("pbc", max_l=1))
    with pytest.raises(ValueError, match=r"expected charges only \(max_l 0\), found max_l 1"):
        build(settings)
