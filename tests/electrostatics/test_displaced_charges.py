"""Boundary condition displaced_charges: dipoles of open structures as pairs of charges."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    ElectrostaticsSettingsError,
    FieldFeatureSettings,
    MeshError,
    batch_coulomb_energy,
    batch_field_features,
    choose_open_mesh,
    prepare_response,
)
from mace_scf_jax.units import COULOMB_CONSTANT

from .systems import Sizes, batch, random_system
from .tolerances import FIRST_DERIVATIVE, IDENTITY, assert_close

SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.0,
    kspace_cutoff_factor=0.6,
    boundary="displaced_charges",
    include_self_interaction=False,
    features=FieldFeatureSettings(max_l=1, widths=(1.0, 1.5)),
)
EXACT = dataclasses.replace(SETTINGS, boundary="exact")
OPEN = (False, False, False)
SIZES = Sizes(atoms=12, graphs=3, slots=5, kvectors=200)


def mixed():
    """An open structure and a crystal."""
    return [random_system(0, 4, pbc=OPEN, length=5.0), random_system(1, 5, length=6.0)]


def prepared(settings=SETTINGS):
    return batch(mixed(), settings.kspace_cutoff, SIZES, tails=settings.tails)


@jax.jit
def values(graph, multipoles):
    energies = batch_coulomb_energy(graph, multipoles, settings=SETTINGS)
    return energies, batch_field_features(graph, multipoles, settings=SETTINGS)


def by_hand(positions, charges):
    """Energy of charges of one system whose atoms have four each."""
    owner = np.repeat(np.arange(len(positions) // 4), 4)
    energy = 0.0
    for i in range(len(positions)):
        for j in range(i):
            if owner[i] != owner[j]:
                r = np.linalg.norm(positions[i] - positions[j])
                energy += charges[i] * charges[j] * erf(r / 2.0) / (r + 1e-6)
    return COULOMB_CONSTANT * energy


def test_the_energy_is_that_of_four_charges_of_every_atom():
    system, h = mixed()[0], 0.02
    corners = h * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    positions = (system.positions[:, None] + corners).reshape(-1, 3)
    charges = np.zeros((4, 4))
    charges[:, 1:] = system.multipoles[:, [3, 1, 2]] / h
    charges[:, 0] = system.multipoles[:, 0] - charges[:, 1:].sum(axis=1)
    energies, _ = values(*prepared())
    assert_close(energies[0], by_hand(positions, charges.ravel()), 1e-11)  # of differences over h


def test_crystals_are_those_of_the_exact_boundary_and_open_structures_nearly():
    graph, multipoles = prepared()
    energies, features = values(graph, multipoles)
    expected = jax.jit(lambda: batch_coulomb_energy(graph, multipoles, settings=EXACT))()
    exact = jax.jit(lambda: batch_field_features(graph, multipoles, settings=EXACT))()
    assert_close(energies[1], expected[1], IDENTITY)
    assert_close(features[4:9], exact[4:9], IDENTITY)
    errors = [abs(energies[0] - expected[0]), np.max(np.abs(features[:4] - exact[:4]))]
    scales = [abs(expected[0]), np.max(np.abs(exact[:4]))]
    for error, scale in zip(errors, scales, strict=True):
        assert 1e-4 * scale < error < 0.1 * scale
    alone, _ = values(graph, multipoles.at[:, 1:].set(0.0))
    charges = batch_coulomb_energy(graph, multipoles.at[:, 1:].set(0.0), settings=EXACT)
    assert_close(alone, charges, 1e-5)  # but for what the reference adds to distances


def test_features_as_a_matrix_and_derivatives():
    graph, multipoles = prepared()
    dense = prepare_response(graph, settings=SETTINGS, dense=True).apply(multipoles)
    assert_close(dense, values(graph, multipoles)[1], IDENTITY)

    def scalar(positions):
        energies, features = values(graph.replace(positions=positions), multipoles)
        return jnp.sum(energies) + jnp.sum(jnp.sin(features))

    gradient = jax.jit(jax.grad(scalar))(graph.positions)
    assert np.all(np.isfinite(gradient))
    direction = np.random.default_rng(2).normal(size=(12, 3))
    direction = jnp.where(graph.atom_mask[:, None], direction, 0.0)
    upper, lower = (scalar(graph.positions + step * direction) for step in (1e-4, -1e-4))
    assert_close(jnp.sum(gradient * direction), (upper - lower) / 2e-4, FIRST_DERIVATIVE)


def test_what_is_refused():
    with pytest.raises(ElectrostaticsSettingsError, match=r"displaced_charges: .* found 2"):
        dataclasses.replace(SETTINGS, max_l=2)
    on_mesh = dataclasses.replace(SETTINGS, sums="mesh")
    with pytest.raises(MeshError, match="displaced charges of an open structure"):
        choose_open_mesh(on_mesh, mixed()[0].positions)
