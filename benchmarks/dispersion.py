"""Time of the D3 energy and forces of boxes of water, beside the package dftd3.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/dispersion.py
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import ase
import jax
import numpy as np
from ase.build import molecule
from ase.units import Bohr, Hartree
from dftd3.interface import DispersionModel, RationalDampingParam

import mace_scf_jax  # noqa: F401  # double precision
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.dispersion import DispersionSettings, dispersion_energy, with_pair_images
from mace_scf_jax.models.forces_and_stress import with_derivatives

ELEMENTS = (1, 8)
VOLUME = 29.9  # Å³ of a molecule


def water(edge: int) -> ase.Atoms:
    """A box of edge³ molecules."""
    rng = np.random.default_rng(1)
    length = VOLUME ** (1 / 3)
    box = ase.Atoms(cell=[edge * length] * 3, pbc=True)
    for place in np.ndindex(edge, edge, edge):
        each = molecule("H2O")
        each.rotate(rng.uniform(0.0, 360.0), rng.normal(size=3))
        each.positions += np.array(place) * length + rng.normal(0.0, 0.2, 3)
        box += each
    box.wrap()
    return box


def seconds(compute: Callable[[], Any], repeats: int) -> float:
    """The shortest of some times, after one that does not count."""
    jax.block_until_ready(compute())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compute())
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=[6, 10], help="molecules per edge")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    settings = DispersionSettings.of("d3bj", "pbe", ELEMENTS)

    def energy(graph):
        return {"energy": dispersion_energy(settings, ELEMENTS, graph)}

    energies = jax.jit(energy)
    forces = jax.jit(lambda graph: with_derivatives(energy, graph, forces=True, stress=False))
    for edge in given.edges:
        atoms = water(edge)
        prepared = prepare(from_atoms(atoms), elements=ELEMENTS, cutoff=1.5)
        graph = jax.device_put(with_pair_images(collate([prepared], labels=False), settings))
        model = DispersionModel(
            atoms.numbers, atoms.positions / Bohr, atoms.cell[:] / Bohr, atoms.pbc
        )
        damping = RationalDampingParam(method="pbe")
        theirs = model.get_dispersion(damping, grad=True)
        ours = jax.device_get(forces(graph))
        energy_error = abs(ours["energy"][0] - Hartree * theirs["energy"])
        forces_error = ours["forces"][: len(atoms)] + Hartree / Bohr * theirs["gradient"]
        times = [
            seconds(functools.partial(compute, *arguments), given.repeats)
            for compute, *arguments in (
                (model.get_dispersion, damping, True),
                (forces, graph),
                (energies, graph),
            )
        ]
        print(
            f"{len(atoms)} atoms: dftd3 {times[0]:.2f} s, here {times[1]:.2f} s, energy alone "
            f"{times[2]:.2f} s; differences {energy_error:.0e} eV, "
            f"{np.abs(forces_error).max():.0e} eV/Å"
        )


if __name__ == "__main__":
    main()
