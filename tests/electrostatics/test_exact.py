"""Boundary condition exact: each structure by its own periodic directions, in batches that mix."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import erf, erfc

from mace_scf_jax.boundary import BoundaryError, check_pbc
from mace_scf_jax.data.cells import repeat_length
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
    batch_coulomb_energy,
    batch_field_features,
    prepare_batch,
    system_coulomb_matrix,
)
from mace_scf_jax.units import COULOMB_CONSTANT

from .systems import Sizes, System, batch, random_system
from .tolerances import FIRST_DERIVATIVE, IDENTITY, assert_close

SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.0,
    kspace_cutoff_factor=0.8,
    boundary="exact",
    features=FieldFeatureSettings(max_l=1, widths=(1.0, 1.5)),
)
SIZES = Sizes(atoms=25, graphs=6, slots=5, kvectors=600)
SLAB, OPEN = (True, True, False), (False, False, False)
INVARIANCE = 1e-10
SHIFT = [31.0, -17.0, 40.0]


@functools.partial(jax.jit, static_argnames="settings")
def _everything(graph, multipoles, strain, settings):
    def total(positions, strain):
        moved = graph.replace(positions=positions).strained(strain)
        energies = batch_coulomb_energy(moved, multipoles, settings=settings)
        return jnp.sum(energies), energies

    (_, energies), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(
        graph.positions, strain
    )
    return {
        "energy": energies,
        "forces": -gradients[0],
        "in_strain": gradients[1],
        "features": batch_field_features(graph, multipoles, settings=settings),
        "potentials": batch_atomic_potentials(graph, multipoles, settings=settings),
    }


def everything(
    systems,
    *,
    settings=SETTINGS,
    sizes=SIZES,
    strain=0.0,
    mesh=None,
    tails=None,
    dtype=np.float64,
):
    """Energies, features and so on of each system, in one batch, by default of one padded size.

    Longer tails make longer repeats. Positions and cells are in double precision in any case.
    """
    cutoff = None if mesh else settings.kspace_cutoff
    graph, multipoles = batch(systems, cutoff, sizes, mesh, tails=tails or settings.tails)
    if sizes is not None:
        graph = graph.replace(open_slots=sizes.slots)
    precise = {"positions": graph.positions, "cell": graph.cell}
    graph, multipoles = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float64 else leaf, (graph, multipoles)
    )
    graph = graph.replace(**precise)
    strain = strain + jnp.zeros_like(graph.cell)
    found = jax.device_get(_everything(graph, multipoles, strain, settings))
    ends = np.cumsum([len(system.positions) for system in systems])
    per_atom = ("forces", "features", "potentials")
    return [
        {
            name: values[end - len(system.positions) : end] if name in per_atom else values[i]
            for name, values in found.items()
        }
        for i, (system, end) in enumerate(zip(systems, ends, strict=True))
    ]


def slab(seed=2, **changes) -> System:
    """A charged slab of four atoms in the xy plane, in a skewed cell."""
    cell = np.array([[5.0, 0.3, 0.0], [-1.1, 4.5, 0.0], [0.4, 0.2, 9.0]])
    return random_system(seed, 4, length=5.0).replace(cell=cell, pbc=SLAB, **changes)


def rotated(system: System, rotation: np.ndarray) -> System:
    multipoles = system.multipoles.copy()
    multipoles[:, [3, 1, 2]] = system.multipoles[:, [3, 1, 2]] @ rotation.T
    return system.replace(
        positions=system.positions @ rotation.T,
        cell=system.cell @ rotation.T,
        multipoles=multipoles,
    )


def other_axis(system: System) -> System:
    """The same structure with its lattice vectors in another order."""
    return system.replace(cell=system.cell[[2, 0, 1]], pbc=tuple(np.roll(system.pbc, 1).tolist()))


def longer_tails(system: System, settings: ElectrostaticsSettings) -> float:
    """Tails with which the slab gets the next longer repeat, as if it had outgrown its own."""
    geometry = system.positions, system.cell, np.array(system.pbc)
    repeat = repeat_length(*geometry, settings.tails)
    tails = settings.tails + 0.5 * repeat * (2.0**0.125 - 1.0)
    assert repeat_length(*geometry, tails) == pytest.approx(2.0**0.125 * repeat)
    return tails


def four_systems() -> list[System]:
    """A crystal, a slab, a slab in a tilted plane with another open axis, an open structure."""
    rotation = Rotation.random(rng=np.random.default_rng(5)).as_matrix()
    return [
        random_system(1, 3, length=5.0),
        slab(),
        other_axis(rotated(slab(7), rotation)),
        random_system(3, 5, length=6.0, pbc=OPEN),
    ]


def test_a_batch_that_mixes_is_each_structure_alone():
    together = everything(four_systems())
    for system, expected in zip(four_systems(), together, strict=True):
        (alone,) = everything([system])
        for name, values in expected.items():
            assert_close(alone[name], values, IDENTITY)
    own_sizes = everything(four_systems(), sizes=None)
    for found, expected in zip(own_sizes, together, strict=True):
        assert_close(found["forces"], expected["forces"], IDENTITY)
        assert_close(found["features"], expected["features"], IDENTITY)


def test_crystals_and_open_structures_are_those_of_their_own_modes():
    exact = everything(four_systems())
    for index, mode in ((0, "pbc"), (3, "realspace")):
        settings = dataclasses.replace(SETTINGS, boundary=mode)
        graph, multipoles = batch([four_systems()[index]], settings.kspace_cutoff)
        energy = jax.jit(functools.partial(batch_coulomb_energy, settings=settings))
        found = energy(graph, multipoles)
        assert_close(found[0], exact[index]["energy"], IDENTITY)


def test_what_means_nothing_changes_nothing():
    rotation = Rotation.random(rng=np.random.default_rng(6)).as_matrix()

    def other_cell(system):
        """Another choice of periodic vectors; anything along open directions."""
        cell, periodic = system.cell.copy(), np.flatnonzero(system.pbc)
        if len(periodic):
            cell[periodic[0]] += 2.0 * cell[periodic[1]]
        cell[~np.array(system.pbc)] = [0.1, -7.0, 3.0]
        return system.replace(cell=cell)

    variants = {
        "rotation": (lambda system: rotated(system, rotation), rotation),
        "reflection": (lambda system: rotated(system, -rotation), -rotation),
        "origin": (
            lambda s: s.replace(positions=np.add(s.positions, [31.0, -17.0, 40.0])),
            np.eye(3),
        ),
        "cell": (other_cell, np.eye(3)),
        "axes": (other_axis, np.eye(3)),
        "image": (
            lambda s: s.replace(
                positions=s.positions + np.array([[1.0, -2.0, 1.0]]) * s.pbc @ s.cell
            ),
            np.eye(3),
        ),
        "no vectors": (
            lambda s: s.replace(cell=s.cell * np.array(s.pbc)[:, None]),
            np.eye(3),
        ),
    }
    expected = everything(four_systems())
    for change, turn in variants.values():
        for found, reference in zip(
            everything([change(system) for system in four_systems()]), expected, strict=True
        ):
            assert_close(found["energy"], reference["energy"], INVARIANCE)
            assert_close(found["potentials"], reference["potentials"], INVARIANCE)
            assert_close(found["features"][:, :2], reference["features"][:, :2], INVARIANCE)
            assert_close(found["forces"], reference["forces"] @ turn.T, INVARIANCE)
            in_strain = turn @ reference["in_strain"] @ turn.T
            assert_close(found["in_strain"], in_strain, INVARIANCE)


def test_forces_and_stress_are_derivatives():
    systems, rng, step = four_systems(), np.random.default_rng(0), 1e-4
    analytic = everything(systems)
    directions = [rng.normal(size=system.positions.shape) for system in systems]
    ends = []
    for sign in (1.0, -1.0):
        moved = [
            system.replace(positions=system.positions + sign * step * direction)
            for system, direction in zip(systems, directions, strict=True)
        ]
        ends.append([found["energy"] for found in everything(moved)])
    slopes = (np.array(ends[0]) - np.array(ends[1])) / (2.0 * step)
    for slope, found, direction in zip(slopes, analytic, directions, strict=True):
        assert_close(-np.sum(found["forces"] * direction), slope, FIRST_DERIVATIVE)
        np.testing.assert_allclose(found["forces"].sum(axis=0), 0.0, atol=1e-10)
    strain = rng.normal(size=(3, 3))
    ends = [
        [found["energy"] for found in everything(systems, strain=sign * step * strain)]
        for sign in (1.0, -1.0)
    ]
    slopes = (np.array(ends[0]) - np.array(ends[1])) / (2.0 * step)
    for slope, found in zip(slopes, analytic, strict=True):
        assert_close(np.sum(found["in_strain"] * strain), slope, FIRST_DERIVATIVE)


def test_matrix_of_a_batch_that_mixes():
    graph, multipoles = batch(four_systems(), SETTINGS.kspace_cutoff, SIZES, tails=SETTINGS.tails)

    @jax.jit
    def matrices(graph):
        return jax.vmap(system_coulomb_matrix)(prepare_batch(graph, settings=SETTINGS))

    p = np.asarray(graph.to_slots(multipoles))
    energies = 0.5 * np.einsum("gia,giajb,gjb->g", p, matrices(graph), p)
    expected = [found["energy"] for found in everything(four_systems())]
    assert_close(energies[:4], expected, IDENTITY)


def _mean_distance(z: np.ndarray, width: float) -> np.ndarray:
    """|z| averaged over a Gaussian."""
    return z * erf(z / (math.sqrt(2.0) * width)) + width * math.sqrt(2.0 / math.pi) * np.exp(
        -0.5 * (z / width) ** 2
    )


def _slab_potentials(sources, charges, points, cell, width: float) -> np.ndarray:
    """Potential of Gaussians of a width in a slab, in V, summed over G with all of k_z in closed
    form: π/G [exp(Gz) erfc(Gσ/√2 + z/(√2 σ)) + (z → -z)], and -2π |z| for G = 0."""
    difference = points[:, None, :] - sources
    area = np.linalg.norm(np.cross(cell[0], cell[1]))
    in_plane = 2.0 * math.pi * np.linalg.pinv(cell[:2]).T
    z = difference[..., 2]
    kernel = -2.0 * math.pi * _mean_distance(z, width)
    for n in itertools.product(range(-9, 10), repeat=2):
        if n == (0, 0):
            continue
        wavevector = np.array(n) @ in_plane
        g = np.linalg.norm(wavevector)
        across = sum(
            np.exp(sign * g * z) * erfc((g * width + sign * z / width) / math.sqrt(2.0))
            for sign in (1.0, -1.0)
        )
        kernel += np.cos(difference @ wavevector) * (math.pi / g) * across
    return COULOMB_CONSTANT / area * kernel @ charges


def test_charged_slab_of_gaussians_in_closed_form():
    converged = dataclasses.replace(SETTINGS, kspace_cutoff_factor=2.2)
    system = slab()
    system.multipoles[1, 1:] = 0.0
    (found,) = everything([system], settings=converged, sizes=None)
    # A dipole is the limit of two charges.
    step, dipoles = 1e-3, system.multipoles[:, [3, 1, 2]]
    sources = np.concatenate(
        [
            system.positions,
            *(system.positions + sign * 0.5 * step * dipoles for sign in (1.0, -1.0)),
        ]
    )
    ones = np.ones(len(dipoles)) / step
    charges = np.concatenate([system.multipoles[:, 0], ones, -ones])
    potentials = _slab_potentials(sources, charges, system.positions, system.cell, 1.0)
    assert_close(found["potentials"], potentials, 1e-7)
    felt = _slab_potentials(sources, charges, sources, system.cell, math.sqrt(2.0))
    assert_close(found["energy"], 0.5 * charges @ felt, 1e-7)


def test_charged_planes_of_gaussians():
    """In a dense lattice only averages over the plane are left: -πA/S Σ q_i q_j |z_ij|."""
    system = System(
        positions=np.array([[0.0, 0.0, 1.0], [0.2, 0.1, 4.5]]),
        multipoles=np.array([[1.0, 0.0, 0.0, 0.0], [0.7, 0.0, 0.0, 0.0]]),
        cell=np.diag([0.8, 0.8, 1.0]),
        pbc=SLAB,
    )
    sharp = dataclasses.replace(SETTINGS, kspace_cutoff_factor=2.0)
    (found,) = everything([system], settings=sharp, sizes=None)
    z, q = system.positions[:, 2], system.multipoles[:, 0]
    distances = _mean_distance(z[:, None] - z, math.sqrt(2.0))
    expected = -math.pi * COULOMB_CONSTANT / 0.64 * q @ distances @ q
    assert_close(found["energy"], expected, 1e-8)


@pytest.mark.slow
def test_neutral_slab_up_to_octupoles_is_that_of_a_wide_vacuum():
    neutral = random_system(4, 3, max_l=3, length=4.0).replace(pbc=SLAB)
    neutral.multipoles[:, 0] -= neutral.multipoles[:, 0].mean()
    wide = neutral.replace(cell=np.diag([4.2, 4.4, 70.0]))
    energies = []
    for mode in ("exact", "slab"):
        settings = dataclasses.replace(
            SETTINGS, max_l=3, boundary=mode, features=None, kspace_cutoff_factor=1.9
        )
        graph, multipoles = batch([wide], settings.kspace_cutoff, tails=settings.tails)
        energies.append(float(batch_coulomb_energy(graph, multipoles, settings=settings)[0]))
    np.testing.assert_allclose(energies[0], energies[1], rtol=1e-9)


def test_what_was_prepared_for_another_mode_or_other_atoms_is_no_number():
    systems = four_systems()
    for mode_tails, change in ((None, 0.0), (SETTINGS.tails, 12.0)):
        graph, multipoles = batch(systems, SETTINGS.kspace_cutoff, SIZES, tails=mode_tails)
        graph = graph.replace(open_slots=SIZES.slots)
        moved = graph.positions.at[3, 2].add(change)  # an atom leaves the first slab
        found = _everything(
            graph.replace(positions=moved), multipoles, jnp.zeros_like(graph.cell), SETTINGS
        )
        is_number = np.isfinite(found["energy"][:4])
        assert is_number.tolist() == [True, False, change > 0.0, change > 0.0]


def test_one_periodic_direction_is_refused():
    wire = np.array([False, True, False])
    with pytest.raises(BoundaryError, match=r"pbc FTF, incompatible .* 'exact', which allows TTT"):
        check_pbc(wire, "exact")
    with pytest.raises(DataError, match="found one periodic direction"):
        repeat_length(np.zeros((1, 3)), np.eye(3), wire, 8.0)
