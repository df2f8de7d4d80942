"""PolarMACE: exact charge and spin, derivatives, Fukui weights, boundary, what is refused."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import assert_close, batch_of, molecule, periodic, structure, tiny_model

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models import PolarMACESettings, build
from mace_scf_jax.models.families.polar_mace.equilibration import equilibrated
from mace_scf_jax.models.families.polar_mace.settings import first_parameters


@functools.cache
def model(boundary="displaced_charges"):
    """Fukui weights that do not add up to nearly nothing, unlike random ones."""
    random = tiny_model("PolarMACE", interaction="RealAgnosticResidualInteractionBlock")
    options = types.SimpleNamespace(fixedpoint_initial_charge_head_scale=0.5)
    started = first_parameters(dict(random.parameters), options)
    return dataclasses.replace(random, parameters=started).using(pbc_handling=boundary)


def doublet():
    atoms = molecule()
    atoms.info |= {"total_charge": 2.0, "total_spin": 2.0}
    return atoms


def crystal():
    atoms = periodic()
    atoms.info |= {"total_spin": 3.0, "external_field": [0.02, -0.01, 0.03]}
    return atoms


def test_total_charge_and_spin_are_exact_and_change_what_is_predicted():
    found = model().predict([doublet(), crystal(), molecule()], forces=False)
    for prediction, charge, unpaired in zip(found, (2.0, -0.5, 1.0), (1.0, 2.0, 0.0), strict=True):
        assert abs(prediction["charges"].sum() - charge) < 1e-13
        assert abs(prediction["spins"].sum() - unpaired) < 1e-13
        assert abs(prediction["total_charge"] - charge) < 1e-13
        np.testing.assert_array_equal(prediction["spins"], prediction["spin_multipoles"][:, 0])
    assert abs(found[0]["energy"] - found[2]["energy"]) > 1e-3
    singles = model().using(dtype="float32").predict([doublet()], forces=False)
    assert abs(singles[0]["spins"].sum() - 1.0) < 1e-6


def test_forces_and_stress_are_derivatives_of_the_energy():
    """Through all steps, of an open doublet in a field and of a crystal in one."""
    own = model()
    graph = batch_of([structure(atoms, own.settings) for atoms in (doublet(), crystal())])
    evaluate = jax.jit(lambda batch: own.evaluate(own.parameters, batch, forces=True, stress=True))
    energy = jax.jit(lambda batch: own.evaluate(own.parameters, batch, forces=False)["energy"])
    outputs, rng, step = evaluate(graph), np.random.default_rng(0), 1e-4
    move = jnp.where(graph.atom_mask[:, None], rng.normal(size=graph.positions.shape), 0.0)
    strain = rng.normal(size=(1, 3, 3)) * np.ones((graph.num_graphs, 1, 1))

    def slope(moved):
        upper, lower = (np.asarray(energy(moved(sign * step))) for sign in (1.0, -1.0))
        return (upper - lower)[:2] / (2.0 * step)

    by_forces = -graph.sum_atoms(jnp.sum(outputs["forces"] * move, axis=1))[:2]
    expected = slope(lambda s: graph.replace(positions=graph.positions + s * move))
    assert_close(by_forces, expected, 1e-6)
    by_virials = -np.sum(outputs["virials"] * strain, axis=(1, 2))[:2]
    assert_close(by_virials, slope(lambda s: graph.strained(s * jnp.asarray(strain))), 1e-6)
    assert np.max(np.abs(outputs["forces"])) > 1e-2


@pytest.mark.slow
def test_dipoles_of_displaced_charges_are_nearly_exact_ones():
    displaced, exact = (
        model(mode).predict([doublet(), crystal()], forces=False)
        for mode in ("displaced_charges", "exact")
    )
    assert displaced[1]["energy"] == pytest.approx(exact[1]["energy"], abs=1e-11)
    difference = np.max(np.abs(displaced[0]["multipoles"] - exact[0]["multipoles"]))
    assert 1e-9 < difference < 1e-2


def test_fukui_weights_share_out_what_is_missing():
    graph = batch_of([structure(doublet(), model().settings)])
    density = np.zeros((graph.num_atoms, 4, 2))
    weights = np.random.default_rng(0).normal(size=(graph.num_atoms, 2)) + 0.5
    charges = np.asarray(equilibrated(graph, jnp.asarray(density), jnp.asarray(weights)))[:, 0]
    shares = weights[:5] / weights[:5].sum(axis=0)
    assert_close(charges[:5], shares * [1.5, 0.5], 1e-13)
    nothing = equilibrated(graph, jnp.asarray(density), jnp.zeros((graph.num_atoms, 2)))
    assert np.all(np.asarray(nothing) == 0.0)


@pytest.mark.parametrize("multiplicity", [0.0, np.nan])
def test_a_multiplicity_below_one_is_refused(multiplicity):
    atoms = doublet()
    atoms.info["total_spin"] = multiplicity
    with pytest.raises(DataError, match="total_spin"):
        model().predict(atoms, forces=False)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="num_recursion_steps: expected at least 1, found 0"):
        PolarMACESettings(field_feature_norms=(1.0,), num_recursion_steps=0)
    with pytest.raises(ValueError, match="field_feature_norms: expected positive numbers"):
        PolarMACESettings(field_feature_norms=(0.0,))
    settings = model().settings
    own = dataclasses.replace(settings.own, field_feature_norms=(1.0,))
    with pytest.raises(ValueError, match="field_feature_norms: expected 4 numbers"):
        build(dataclasses.replace(settings, own=own))
    plain = dataclasses.replace(settings.electrostatics, features=None)
    with pytest.raises(ValueError, match="PolarMACE needs electrostatic settings with field"):
        build(dataclasses.replace(settings, electrostatics=plain))
