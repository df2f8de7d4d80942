"""Models of the reference at their solved multipoles: derivatives, charges, batches, starts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from reference_models import STRONG, reference_atoms, reference_model
from tiny_models import batch_of

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import required_sizes
from mace_scf_jax.models import SCFState, SelfConsistency
from mace_scf_jax.scf import Anderson, LinearMixing, SolverStatus
from mace_scf_jax.simulate import Committee, Model

TIGHT = Anderson(tolerance=1e-12)
"""What is left of the residual is noise in finite differences of energies."""
CONSTANT_CHARGE = SelfConsistency(TIGHT)
CONSTANT_LEVEL = SelfConsistency(TIGHT, constant_charge=False)
MIXING = SelfConsistency(LinearMixing(max_steps=400, mixing=0.3, tolerance=1e-11))


@functools.cache
def model(scf: SelfConsistency = CONSTANT_CHARGE) -> Model:
    strong = reference_model(STRONG)
    return Model(strong.settings, strong.parameters, scf=scf)


def prepared(atoms):
    return model().prepare(from_atoms(atoms))


SIZES = required_sizes([prepared(atoms) for atoms in reference_atoms(STRONG)]).rounded()


def batch(structures):
    """Always the same padded sizes: one compilation serves all."""
    return batch_of([prepared(atoms) for atoms in structures], SIZES)


def solve(graph, scf=CONSTANT_CHARGE, start=None):
    return model(scf).evaluate(model().parameters, graph, start, stress=True)


@functools.cache
def solved(scf=CONSTANT_CHARGE):
    return solve(batch(reference_atoms(STRONG)), scf)


def random_direction(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def slope(energies, h):
    """Derivative at 0 of a function of one number, with an error of fourth order."""
    near, far = energies(h) - energies(-h), energies(2 * h) - energies(-2 * h)
    return (8 * near - far) / (12 * h)


@pytest.mark.parametrize(
    "scf",
    [CONSTANT_CHARGE, pytest.param(CONSTANT_LEVEL, marks=pytest.mark.slow)],
    ids=["constant charge", "constant level"],
)
def test_forces_and_stress_are_derivatives_of_the_converged_energy(scf):
    graph, outputs = batch(reference_atoms(STRONG)), solved(scf)
    np.testing.assert_array_equal(outputs["scf_status"], SolverStatus.CONVERGED)
    motion = random_direction(graph.positions.shape, 0)
    expected = slope(
        lambda h: solve(graph.replace(positions=graph.positions + h * motion), scf)["energy"], 1e-3
    )
    actual = -graph.sum_atoms(jnp.sum(outputs["forces"] * motion, axis=-1))
    np.testing.assert_allclose(actual[:3], expected[:3], rtol=1e-6)

    strain = random_direction(graph.cell.shape, 1)
    strain = 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
    expected = slope(lambda h: solve(graph.strained(h * strain), scf)["energy"], 2e-4)
    volume = jnp.abs(jnp.linalg.det(graph.cell))
    actual = volume * jnp.sum(outputs["stress"] * strain, axis=(1, 2))
    np.testing.assert_allclose(actual[:3], expected[:3], rtol=1e-6)


@pytest.mark.slow
def test_forces_do_not_depend_on_how_the_solution_is_found():
    mixed, outputs = solved(MIXING), solved()
    np.testing.assert_array_equal(mixed["scf_status"], SolverStatus.CONVERGED)
    assert np.all(mixed["scf_steps"][:3] > 3 * outputs["scf_steps"][:3])
    for name in ("forces", "stress", "multipoles", "fermi_level"):
        np.testing.assert_allclose(mixed[name], outputs[name], rtol=1e-6, atol=1e-8, err_msg=name)


def test_systems_carry_their_charge():
    charges = [atoms.info["total_charge"] for atoms in reference_atoms(STRONG)]
    assert np.ptp(charges) == 1.0
    np.testing.assert_allclose(solved()["total_charge"][:3], charges, atol=1e-8)


def test_results_do_not_depend_on_the_batch():
    for index, atoms in enumerate(reference_atoms(STRONG)):
        alone, together = solve(batch([atoms])), solved()
        for name in ("energy", "stress", "fermi_level"):
            np.testing.assert_allclose(
                alone[name][0], together[name][index], rtol=1e-9, atol=1e-9, err_msg=name
            )
        assert alone["scf_steps"][0] == together["scf_steps"][index]


def test_a_single_atom_and_its_ion():
    hydrogen = Atoms("H", cell=[20.0] * 3, info={"total_charge": 0.0})
    ion = Atoms("H", cell=[20.0] * 3, info={"total_charge": 1.0})
    outputs = solve(batch([hydrogen, ion]))
    np.testing.assert_array_equal(outputs["scf_status"], SolverStatus.CONVERGED)
    np.testing.assert_allclose(outputs["total_charge"][:2], [0.0, 1.0], atol=1e-8)
    np.testing.assert_allclose(outputs["forces"], 0.0, atol=1e-9)
    assert outputs["fermi_level"][0] != outputs["fermi_level"][1]


@pytest.mark.slow
def test_a_warm_start_changes_nothing():
    """State in, state out."""
    graph = batch(reference_atoms(STRONG))
    motion = 1e-3 * random_direction(graph.positions.shape, 2)
    moved = graph.replace(positions=graph.positions + motion)
    cold, warm = solve(moved), solve(moved, start=SCFState.of(solved()))
    np.testing.assert_allclose(warm["energy"], cold["energy"], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(warm["forces"], cold["forces"], rtol=0.0, atol=1e-7)
    assert np.all(warm["scf_evaluations"][:3] <= cold["scf_evaluations"][:3])
    again = solve(moved, start=SCFState.of(warm))
    np.testing.assert_array_equal(again["scf_steps"], 0)


@pytest.mark.slow
def test_single_precision_ends_with_a_status():
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), model().parameters)
    single = Model(model().settings, parameters)
    crystal = reference_atoms(STRONG)[1]
    prediction = single.predict(crystal)
    assert prediction["forces"].dtype == np.float32
    assert prediction["scf_status"] is SolverStatus.CONVERGED
    assert prediction["scf_residual"] < 1e-5
    expected = solved()
    own = np.asarray(expected["forces"])[10:22]
    np.testing.assert_allclose(prediction["forces"], own, atol=1e-3 * np.max(np.abs(own)))
    np.testing.assert_allclose(prediction["total_charge"], 0.0, atol=1e-4)


@pytest.mark.slow
def test_each_member_of_a_committee_starts_from_its_own_solution():
    other = jax.tree.map(lambda leaf: 1.01 * leaf, model().parameters)
    committee = Committee((model(), Model(model().settings, other, scf=CONSTANT_CHARGE)))
    atoms = reference_atoms(STRONG)[0]
    first = committee.predict(atoms, forces=False)
    assert first.std["fermi_level"] > 0.0
    again = committee.predict(atoms, forces=False, start=first)
    for before, after in zip(first.members, again.members, strict=True):
        assert after["scf_evaluations"] < before["scf_evaluations"]
        np.testing.assert_allclose(after["multipoles"], before["multipoles"], atol=1e-9)
