"""Numbers that do not come from another implementation: lattices, closed forms, limits."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_coulomb_energy,
    batch_field_features,
    prepare,
    system_potential,
)
from mace_scf_jax.electrostatics.gaussians import Receivers, odd_double_factorial
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS
from mace_scf_jax.electrostatics.sums import OpenSum
from mace_scf_jax.units import COULOMB_CONSTANT

from .systems import System, batch, random_system
from .tolerances import IDENTITY, assert_close

FACE_CENTRED = 0.5 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
LATTICES = {
    # name: (cell, fractional positions, charges, nearest distance, Madelung constant × charges)
    "NaCl": (FACE_CENTRED, [[0, 0, 0], [0.5] * 3], [1, -1], 0.5, 1.747564594633182),
    "CsCl": (np.eye(3), [[0, 0, 0], [0.5] * 3], [1, -1], np.sqrt(0.75), 1.762674773070991),
    "ZnS": (FACE_CENTRED, [[0, 0, 0], [0.25] * 3], [1, -1], np.sqrt(3) / 4, 1.638055053388789),
    "CaF2": (
        FACE_CENTRED,
        [[0, 0, 0], [0.25] * 3, [0.75] * 3],
        [2, -1, -1],
        np.sqrt(3) / 4,
        # Superposition of sublattices: four zinc blendes less one rock salt.
        4 * 1.638055053388789 - np.sqrt(0.75) * 1.747564594633182,
    ),
}


@functools.partial(jax.jit, static_argnames="settings")
def single_energy(graph, multipoles, *, settings):
    return batch_coulomb_energy(graph, multipoles, settings=settings)[0]


def energy_of(system: System, settings: ElectrostaticsSettings) -> float:
    periodic = settings.boundary.value != "realspace"
    graph, multipoles = batch([system], settings.kspace_cutoff if periodic else None)
    return float(single_energy(graph, multipoles, settings=settings))


@pytest.mark.parametrize("name", LATTICES)
def test_madelung_constants(name):
    cell, fractional, charges, distance, madelung = LATTICES[name]
    settings = ElectrostaticsSettings(
        max_l=0,
        smearing_width=0.04,
        kspace_cutoff_factor=2.6,
        boundary="pbc",
        include_self_interaction=False,
    )
    system = System(np.array(fractional) @ cell, np.array(charges, float)[:, None], cell)
    energy = energy_of(system, settings)
    np.testing.assert_allclose(-energy * distance / COULOMB_CONSTANT, madelung, rtol=1e-11)


def gaussian_charges_potential(separation, inverse_length_squared):
    """erf(βr)/r, written out."""
    distance = jnp.sqrt(jnp.sum(separation * separation))
    return jax.lax.erf(jnp.sqrt(inverse_length_squared) * distance) / distance


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.7, 9.0])
def test_pair_of_gaussian_charges(distance):
    settings = ElectrostaticsSettings(
        max_l=0, smearing_width=0.9, boundary="realspace", include_self_interaction=False
    )
    system = System(
        np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]), np.array([[1.5], [-0.7]]), np.eye(3)
    )
    expected = -1.05 * COULOMB_CONSTANT * float(jax.lax.erf(distance / 1.8)) / distance
    np.testing.assert_allclose(energy_of(system, settings), expected, rtol=1e-13)


def test_pair_of_gaussian_dipoles():
    settings = ElectrostaticsSettings(
        max_l=1, smearing_width=0.9, boundary="realspace", include_self_interaction=False
    )
    r = np.array([0.4, -1.1, 1.9])
    first, second = np.array([0.3, -0.8, 0.5]), np.array([-0.6, 0.2, 0.9])
    multipoles = np.array([[0.0, *first[[1, 2, 0]]], [0.0, *second[[1, 2, 0]]]])
    length = np.linalg.norm(r)
    beta = 1 / 1.8
    erf = float(jax.lax.erf(beta * length))
    gaussian = 2 * beta / np.sqrt(np.pi) * np.exp(-((beta * length) ** 2))
    b1 = erf / length**3 - gaussian / length**2
    b2 = 3 * b1 / length**2 - 2 * beta**2 * gaussian / length**2
    expected = COULOMB_CONSTANT * (first @ second * b1 - (first @ r) * (second @ r) * b2)
    energy = energy_of(System(np.stack([np.zeros(3), r]), multipoles, np.eye(3)), settings)
    np.testing.assert_allclose(energy, expected, rtol=1e-12)


@pytest.mark.parametrize(("receiver_l", "source_l"), [(3, 0), (0, 3), (2, 1), (1, 3), (2, 2)])
def test_multipole_pairs_are_derivatives_of_charge_pairs(receiver_l, source_l):
    width, receiver_width = 0.9, 0.6
    separation = jnp.array([0.5, -0.9, 1.2])
    derivative = functools.partial(
        gaussian_charges_potential, inverse_length_squared=0.5 / (width**2 + receiver_width**2)
    )
    for _ in range(receiver_l + source_l):
        derivative = jax.jacfwd(derivative)
    derivatives = np.asarray(jax.jit(derivative)(separation))
    scale = (-1.0) ** source_l / (odd_double_factorial(receiver_l) * odd_double_factorial(source_l))
    expected = np.zeros((2 * receiver_l + 1, 2 * source_l + 1))
    for a, b in itertools.product(range(2 * receiver_l + 1), range(2 * source_l + 1)):
        for left, left_value in SOLID_HARMONICS[receiver_l][a].items():
            for right, right_value in SOLID_HARMONICS[source_l][b].items():
                axes = [axis for axis in range(3) for _ in range(left[axis] + right[axis])]
                expected[a, b] += left_value * right_value * derivatives[tuple(axes)]
    project = jax.vmap(
        lambda multipoles: OpenSum(jnp.zeros((1, 3)), width, source_l).project(
            multipoles[None], Receivers(receiver_l, (receiver_width,)), separation[None]
        )[0, 0, receiver_l**2 :]
    )
    projections = jax.jit(project)(jnp.eye((source_l + 1) ** 2)[source_l**2 :])
    assert_close(projections.T, COULOMB_CONSTANT * scale * expected, IDENTITY)


def isolated(max_l: int, charge: float) -> System:
    """Three atoms near each other, with a given total charge."""
    system = random_system(7, 3, max_l=max_l, pbc=(False, False, False), length=3.0)
    multipoles = system.multipoles.copy()
    multipoles[:, 0] += (charge - multipoles[:, 0].sum()) / 3
    return system.replace(positions=system.positions - 1.5, multipoles=multipoles)


@pytest.mark.parametrize(("max_l", "charge", "order"), [(1, 0.0, 5), (3, 0.0, 5), (1, 1.0, 3)])
def test_molecule_in_box_becomes_open_boundary_as_the_box_grows(max_l, charge, order):
    system = isolated(max_l, charge)
    width = 1.0
    open_settings = ElectrostaticsSettings(max_l=max_l, smearing_width=width, boundary="realspace")
    box_settings = ElectrostaticsSettings(
        max_l=max_l, smearing_width=width, boundary="molecule_in_box", kspace_cutoff_factor=1.5
    )
    exact = energy_of(system, open_settings)
    small, large = 14.0, 20.0
    errors = [
        energy_of(system.replace(cell=length * np.eye(3)), box_settings) - exact
        for length in (small, large)
    ]
    if charge != 0.0:
        # What the correction leaves out is the spread of the Gaussians.
        spread = 2 * np.pi * COULOMB_CONSTANT * (width * charge) ** 2
        np.testing.assert_allclose(errors, [spread / small**3, spread / large**3], rtol=0.03)
    assert abs(errors[1]) < 1.1 * (small / large) ** order * abs(errors[0])


@functools.partial(jax.jit, static_argnames="settings")
def potential_at(graph, multipoles, points, *, settings):
    prepared = prepare(
        graph.positions,
        graph.atom_mask,
        graph.cell[0],
        graph.pbc[0],
        graph.k_indices[0],
        graph.k_mask[0],
        settings=settings,
    )
    return system_potential(prepared, multipoles, points)


def test_corrected_potential_of_a_molecule_approaches_the_open_one():
    system = isolated(1, 0.0)
    points = system.positions + np.array([0.0, 1.2, -0.7])

    def potential(boundary, length):
        settings = ElectrostaticsSettings(
            max_l=1, smearing_width=1.0, boundary=boundary, kspace_cutoff_factor=1.5
        )
        in_box = system.replace(cell=length * np.eye(3))
        graph, multipoles = batch([in_box], settings.kspace_cutoff)
        return np.asarray(potential_at(graph, multipoles, points, settings=settings))

    exact = potential("realspace", 14.0)
    small = np.abs(potential("molecule_in_box", 14.0) - exact).max()
    large = np.abs(potential("molecule_in_box", 20.0) - exact).max()
    assert large < 1.1 * (14 / 20) ** 5 * small
    assert large < 1e-3 * np.abs(exact).max()


def test_slab_energy_is_flat_in_vacuum_thickness():
    system = random_system(3, 5, pbc=(True, True, False), length=5.0, skew=0.0)
    multipoles = system.multipoles.copy()
    multipoles[:, 0] -= multipoles[:, 0].mean()
    settings = ElectrostaticsSettings(
        max_l=1, smearing_width=1.0, boundary="slab", kspace_cutoff_factor=1.5
    )
    energies = [
        energy_of(system.replace(multipoles=multipoles, cell=np.diag([5.0, 5.0, height])), settings)
        for height in (20.0, 25.0, 32.0)
    ]
    assert np.ptp(energies) < 1e-6


@pytest.mark.parametrize("feature_max_l", [1, 3])
def test_lone_atom_has_no_features_without_its_own_contribution(feature_max_l):
    settings = ElectrostaticsSettings(
        max_l=2,
        smearing_width=1.2,
        boundary="realspace",
        features=FieldFeatureSettings(max_l=feature_max_l, widths=(0.8, 2.0)),
    )
    graph, multipoles = batch([random_system(0, 1, max_l=2)], None)
    features = jax.jit(functools.partial(batch_field_features, settings=settings))
    np.testing.assert_allclose(features(graph, multipoles), 0.0, atol=1e-12)
