"""The D3 energy, its forces and stress are those of the package dftd3, and finite differences."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import fcc111, molecule
from ase.units import Bohr, Hartree
from dftd3 import interface

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.dispersion import DispersionSettings, dispersion_energy, with_pair_images
from mace_scf_jax.dispersion.images import translations_within
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.forces_and_stress import with_derivatives

ELEMENTS = (1, 6, 8, 13, 22)


def left_handed() -> ase.Atoms:
    """A small crystal without symmetry, some atoms outside of the cell."""
    cell = [[4.1, 0.3, 0.2], [-1.1, 3.9, 0.4], [0.5, 0.8, -5.0]]
    return ase.Atoms("TiO2", [[0.1, 0.2, 0.3], [1.9, 4.4, 0.1], [-1.7, 0.4, 0.9]], cell=cell, pbc=1)


def structures() -> list[ase.Atoms]:
    slab = fcc111("Al", (2, 2, 2), vacuum=6.0)
    slab.rattle(0.1, seed=1)
    cluster = molecule("CH3CH2OH")
    cluster.rattle(0.1, seed=2)
    return [cluster, left_handed(), slab]


def liquid() -> ase.Atoms:
    """A box of 75 atoms, in several blocks."""
    rng = np.random.default_rng(4)
    box = ase.Atoms(cell=[9.0, 9.5, 10.0], pbc=True)
    for place in rng.permutation(list(np.ndindex(3, 3, 3)))[:25]:
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += place * 3.1 + rng.normal(0.0, 0.1, 3)
        box += water
    return box


def batch_of(atoms: Sequence[ase.Atoms], settings: DispersionSettings, dtype=np.float64) -> Graph:
    prepared = [prepare(from_atoms(each), elements=ELEMENTS, cutoff=3.0) for each in atoms]
    return with_pair_images(collate(prepared, labels=False, dtype=dtype), settings)


@functools.partial(jax.jit, static_argnums=0)
def energies_and_derivatives(settings: DispersionSettings, graph: Graph):
    return with_derivatives(
        lambda moved: {"energy": dispersion_energy(settings, ELEMENTS, moved)},
        graph,
        forces=True,
        stress=True,
    )


def of_package(atoms: ase.Atoms, settings: DispersionSettings):
    """Energy (eV), forces and virials, by the package."""
    atoms = atoms.copy()
    atoms.wrap()  # it does not look far enough for others
    periodic = bool(atoms.pbc.any())
    model = interface.DispersionModel(
        atoms.numbers,
        atoms.positions / Bohr,
        np.array(atoms.cell) / Bohr if periodic else None,
        atoms.pbc if periodic else None,
    )
    lengths = (settings.cutoff, settings.three_body_cutoff, settings.coordination_cutoff)
    model.set_realspace_cutoff(*(length / Bohr for length in lengths))
    damping = interface.RationalDampingParam(
        method=settings.functional, atm=settings.has_three_body
    )
    found = model.get_dispersion(damping, grad=True)
    forces = -Hartree / Bohr * found["gradient"]
    return Hartree * float(found["energy"]), forces, -Hartree * found["virial"]


def assert_equal_to_package(
    atoms: Sequence[ase.Atoms], settings: DispersionSettings, dtype=np.float64, tolerance=1e-9
):
    graph = batch_of(atoms, settings, dtype)
    found = jax.device_get(energies_and_derivatives(settings, graph))
    first = 0
    for index, each in enumerate(atoms):
        energy, forces, virials = of_package(each, settings)
        assert abs(found["energy"][index] - energy) < tolerance
        own = found["forces"][first : first + len(each)]
        np.testing.assert_allclose(own, forces, atol=tolerance)
        np.testing.assert_allclose(found["virials"][index], virials, atol=10 * tolerance)
        first += len(each)
    assert np.all(found["energy"][len(atoms) :] == 0.0)


def test_molecule_crystal_and_slab_are_those_of_the_package():
    """With its own cutoffs, in one batch of different sizes."""
    assert_equal_to_package(structures(), DispersionSettings.of("d3bj", "PBE", ELEMENTS))


def test_derivatives_are_those_of_finite_differences():
    """To 1e-3: pairs that cross the sharp cutoff in a step change the energy, not the forces."""
    settings, step = DispersionSettings.of("d3bj", "PBE", ELEMENTS), 1e-3
    graph = batch_of(structures(), settings)
    found = energies_and_derivatives(settings, graph)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=graph.positions.shape) * graph.atom_mask[:, None]
    strain = rng.normal(size=(3, 3))
    strain = np.broadcast_to(0.5 * (strain + strain.T), graph.cell.shape)

    def slope(move):
        ends = [energies_and_derivatives(settings, move(sign * step)) for sign in (1.0, -1.0)]
        return (ends[0]["energy"] - ends[1]["energy"]) / (2.0 * step)

    moved = slope(lambda by: graph.replace(positions=graph.positions + by * direction))
    expected = -graph.sum_atoms(np.sum(np.asarray(found["forces"]) * direction, axis=1))
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-6)
    strained = slope(lambda by: jax.device_get(graph.strained(jnp.asarray(by * strain))))
    np.testing.assert_allclose(strained, -np.sum(found["virials"] * strain, axis=(1, 2)), rtol=1e-3)


def test_several_blocks_are_those_of_the_package():
    """Pairs of blocks that are out of reach are left out."""
    settings = DispersionSettings.of("d3bj", "r2scan", ELEMENTS, cutoff=8.7)
    assert_equal_to_package([liquid()], settings)


def test_single_precision():
    settings = DispersionSettings.of("d3bj", "PBE", ELEMENTS)
    assert_equal_to_package(structures(), settings, np.float32, 1e-5)


def test_three_body_term_is_that_of_the_package():
    settings = DispersionSettings.of("d3bjatm", "b3lyp", ELEMENTS, cutoff=9.0)
    assert_equal_to_package([molecule("H2O"), left_handed()], settings)


def test_a_chain_is_that_in_a_wide_cell():
    """The package leaves out pairs of a chain; in a cell with three periodic directions it has all,
    and nothing reaches across 100 Å."""
    settings = DispersionSettings.of("d3bj", "PBE", ELEMENTS, cutoff=19.0)
    positions = [[0, 0, 0], [1.2, 0.4, 0], [0, -1, 0.2], [1.2, 1.5, 0]]
    chain = ase.Atoms("C2H2", positions, cell=[2.5, 0.0, 0.0], pbc=[True, False, False])
    in_cell = chain.copy()
    in_cell.set_cell([2.5, 100.0, 100.0])
    in_cell.pbc = True
    graph = batch_of([chain], settings)
    found = jax.jit(lambda graph: dispersion_energy(settings, ELEMENTS, graph))(graph)
    assert abs(found[0] - of_package(in_cell, settings)[0]) < 1e-9


def test_translations_hold_all_pairs_within_reach():
    rng = np.random.default_rng(5)
    for pbc in ([True, True, True], [False, True, True], [True, False, False]):
        pbc, reach = np.array(pbc), 9.0
        box = np.diag([3.0, 4.0, 5.0]) + rng.normal(0.0, 0.5, (3, 3)) * np.outer(pbc, pbc)
        found = {tuple(each) for each in translations_within(box, pbc, reach)}
        numbers = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), axis=-1).reshape(-1, 3)
        numbers = numbers[np.all((numbers == 0) | pbc, axis=1)]
        for difference in rng.uniform(-1.0, 1.0, (200, 3)) * pbc:
            near = np.linalg.norm((numbers + difference) @ box, axis=1) < reach
            assert {tuple(each) for each in numbers[near]} <= found


def test_a_batch_without_images_is_refused():
    settings = DispersionSettings.of("d3bj", "PBE", ELEMENTS)
    short = DispersionSettings.of("d3bj", "PBE", ELEMENTS, cutoff=8.0)
    graph = batch_of([molecule("H2O")], short)
    with pytest.raises(ValueError, match=r"images within 31\.75 Å, found those of 8\.00 Å"):
        dispersion_energy(settings, ELEMENTS, graph)
    with pytest.raises(ValueError, match="found none"):
        dispersion_energy(settings, ELEMENTS, graph.replace(images=None))
