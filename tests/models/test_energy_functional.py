"""The learned energy functional: minima, charge, derivatives to second order, bad input."""

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
    tiny_settings,
)

from mace_scf_jax.electrostatics import prepare_batch, system_energy
from mace_scf_jax.models import EnergyFunctionalSettings, ModelSettings, build, evaluate
from mace_scf_jax.models.families.energy_functional.atomic_functional import (
    AtomicFunctionalReadout,
    unit_softplus,
)
from mace_scf_jax.models.families.energy_functional.model import EnergyFunctional, local_energy
from mace_scf_jax.scf import SolverStatus

DENSE_AND_MATRIX_FREE = [512, pytest.param(0, marks=pytest.mark.slow)]


def settings_of(**changes):
    settings = tiny_settings("EnergyFunctional")
    functional = dataclasses.replace(settings.own, **changes)
    return dataclasses.replace(settings, own=functional)


@pytest.fixture(scope="module")
def batch():
    """An open structure in a field, a periodic one and a slab."""
    structures = []
    for atoms, charge in ((molecule(), 1.0), (periodic(), 0.0), (slab(), 0.0)):
        atoms.info["total_charge"] = charge
        structures.append(structure(atoms, settings_of()))
    return batch_of(structures)


@pytest.fixture(scope="module")
def params(batch):
    return random_parameters(EnergyFunctional(settings_of()), batch)


def outputs(params, graph, **changes):
    stress = changes.pop("stress", False)
    return evaluate(EnergyFunctional(settings_of(**changes)), params, graph, stress=stress)


@pytest.fixture(scope="module")
def predicted(batch, params):
    return jax.jit(functools.partial(outputs, stress=True))(params, batch)


def test_multipoles_minimise_the_functional(batch, params, predicted):
    @jax.jit
    def parts(params, batch):
        backbone = settings_of().backbone.build().apply({"params": params["backbone"]}, batch)
        functional = AtomicFunctionalReadout(settings_of()).apply(
            {"params": params["functional"]}, backbone
        )
        return functional, prepare_batch(batch, settings=settings_of().electrostatics)

    functional, prepared = parts(params, batch)

    def energy(dense):
        coefficients = jax.tree.map(batch.to_slots, functional)
        on_atoms = jax.vmap(local_energy)(prepared, coefficients, batch.external_field, dense)
        return jax.vmap(system_energy)(prepared, dense) + on_atoms

    @jax.jit
    def derivatives(multipoles):
        dense = batch.to_slots(multipoles)
        gradient = jax.grad(lambda values: jnp.sum(energy(values)))

        def first(values):
            return gradient(jnp.zeros_like(dense).at[0].set(values))[0]

        return energy(dense), gradient(dense), jax.jacfwd(first)(dense[0])

    values, gradient, curvature = derivatives(predicted["multipoles"])
    np.testing.assert_allclose(predicted["functional_energy"][:3], values[:3], rtol=1e-13)
    potential = np.asarray(predicted["chemical_potential"])[:3, None]
    mask = np.asarray(batch.slot_mask)[:3]
    np.testing.assert_allclose(np.where(mask, gradient[:3, :, 0] - potential, 0.0), 0.0, atol=1e-8)
    np.testing.assert_allclose(np.where(mask[..., None], gradient[:3, :, 1:], 0.0), 0.0, atol=1e-8)
    kept = np.flatnonzero(np.repeat(mask[0], 4))
    matrix = np.asarray(curvature).reshape(curvature.shape[0] * 4, -1)[np.ix_(kept, kept)]
    assert np.linalg.eigvalsh(matrix)[0] > 0.1
    np.testing.assert_array_equal(predicted["solver_status"], SolverStatus.CONVERGED)
    assert np.all(np.asarray(predicted["solver_steps"])[:3] > 1)
    assert float(jnp.max(predicted["charge_residual"])) < 1e-9


def test_the_total_charge_is_exact(batch, predicted):
    assert float(jnp.max(jnp.abs(predicted["multipoles"]))) > 0.05
    np.testing.assert_allclose(
        predicted["total_charge"][:3], batch.total_charge[:3], rtol=0.0, atol=1e-14
    )


def test_forces_and_stress_are_derivatives_of_the_energy(batch, params, predicted):
    energy = jax.jit(lambda graph: EnergyFunctional(settings_of()).apply({"params": params}, graph))
    rng, step = np.random.default_rng(2), 5e-4
    direction = rng.normal(size=batch.positions.shape)
    bend = rng.normal(size=batch.cell.shape)

    def moved(size):
        shifted = batch.replace(positions=batch.positions + size * direction)
        bent = batch.strained(size * jnp.asarray(bend))
        return [np.asarray(energy(graph)["energy"])[:3] for graph in (shifted, bent)]

    # five points, because the charges respond strongly
    sizes = (step, -step, 2.0 * step, -2.0 * step)
    along, strained = (
        (8.0 * (one - minus_one) - (two - minus_two)) / (12.0 * step)
        for one, minus_one, two, minus_two in zip(*map(moved, sizes), strict=True)
    )
    work = batch.sum_atoms(predicted["forces"] * direction)[:3].sum(axis=1)
    np.testing.assert_allclose(-work, along, rtol=1e-6)
    virial = np.sum(np.asarray(predicted["virials"]) * bend, axis=(1, 2))[:3]
    np.testing.assert_allclose(-virial, strained, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dense_max_unknowns", DENSE_AND_MATRIX_FREE)
def test_losses_of_forces_and_charges_have_the_gradient_of_finite_differences(
    batch, params, predicted, dense_max_unknowns
):
    def loss(params):
        result = outputs(params, batch, dense_max_unknowns=dense_max_unknowns)
        charges, forces = result["multipoles"], result["forces"]
        return jnp.sum(forces**2) + 30.0 * jnp.sum(charges**3), (charges, forces)

    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)

    def along(size):
        return loss(jax.tree.map(lambda leaf, way: leaf + size * way, params, direction))

    compiled = jax.jit(jax.value_and_grad(along, has_aux=True))
    (_, (charges, forces)), slope = compiled(jnp.asarray(0.0))
    np.testing.assert_allclose(charges, predicted["multipoles"], atol=1e-9)
    np.testing.assert_allclose(forces, predicted["forces"], atol=1e-8)
    step = 1e-6
    upper, lower = (compiled(jnp.asarray(size))[0][0] for size in (step, -step))
    np.testing.assert_allclose(slope, (upper - lower) / (2.0 * step), rtol=1e-5)


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


def test_before_learning_the_stiffness_is_the_default():
    values = unit_softplus(jnp.asarray([-200.0, 0.0, 200.0]))
    np.testing.assert_allclose(values[1], 1.0, rtol=1e-15)
    np.testing.assert_allclose(values[2], 200.0, rtol=1e-2)
    assert values[0] > 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_hardness": 0.0}, "default_hardness: expected a positive number"),
        ({"default_hardness": math.nan}, "default_hardness: expected a positive number"),
        ({"num_directions": 0}, "num_directions: expected at least 1, found 0"),
        ({"max_steps": 0}, "max_steps: expected at least 1, found 0"),
    ],
)
def test_settings_without_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EnergyFunctionalSettings(**changes)


def test_settings_survive_the_model_file():
    settings = settings_of(dense_max_unknowns=100)
    assert ModelSettings.from_dict(settings.to_dict()) == settings


def test_without_self_interaction_there_may_be_no_minimum():
    electrostatics = dataclasses.replace(
        settings_of().electrostatics, include_self_interaction=False
    )
    with pytest.raises(ValueError, match="include_electrostatic_self_interaction: true"):
        build(dataclasses.replace(settings_of(), electrostatics=electrostatics))


def test_charges_alone_are_enough(batch):
    settings = dataclasses.replace(
        settings_of(),
        backbone=tiny_backbone(scalar_last_layer=False),
        electrostatics=dataclasses.replace(settings_of().electrostatics, max_l=0),
    )
    module = build(settings)
    params = random_parameters(module, batch)
    result = jax.jit(lambda graph: module.apply({"params": params}, graph))(batch)
    assert result["multipoles"].shape == (batch.num_atoms, 1)
    np.testing.assert_array_equal(result["solver_status"], SolverStatus.CONVERGED)
