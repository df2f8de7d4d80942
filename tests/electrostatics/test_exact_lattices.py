"""Boundary condition exact: lattices of ions whose energy is known in closed form, in one batch."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest

from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    batch_coulomb_energy,
    choose_mesh,
)
from mace_scf_jax.units import COULOMB_CONSTANT

from .systems import System, batch
from .test_independent_truths import FACE_CENTRED

SETTINGS = ElectrostaticsSettings(
    max_l=0, smearing_width=0.05, kspace_cutoff_factor=2.6, boundary="exact"
)
"""Nearest ions are ten widths apart: Gaussians do not overlap."""
ON_MESH = dataclasses.replace(SETTINGS, sums="mesh", mesh_accuracy=1e-10)
TOLERANCE = 2e-11
"""Found 5e-12, the overlap of an ion of NaCl with its six neighbours: erfc(5) = 1.5e-12 of each."""
PERIODIC, SLAB, OPEN = (True, True, True), (True, True, False), (False, False, False)

LATTICES = {
    # name: (cell, fractional positions, pbc, nearest distance, Madelung constant)
    "NaCl": (FACE_CENTRED, [[0, 0, 0], [0.5] * 3], PERIODIC, 0.5, 1.747564594633182),
    "CsCl": (np.eye(3), [[0, 0, 0], [0.5] * 3], PERIODIC, math.sqrt(0.75), 1.762674773070991),
    # 4 (1 - √2) ζ(½) β(½): one layer of NaCl
    "layer": (np.eye(3), [[0, 0, 0.3], [0.5, 0.5, 0.3]], SLAB, math.sqrt(0.5), 1.615542626712825),
    "pair": (np.eye(3), [[0, 0, 0], [0, 0.6, 0]], OPEN, 0.6, 1.0),
}


def lattice(name: str) -> System:
    cell, fractional, pbc, _, _ = LATTICES[name]
    return System(np.array(fractional) @ cell, np.array([[1.0], [-1.0]]), cell, pbc)


def repeated_cell(system: System) -> np.ndarray:
    pbc = np.array(system.pbc)
    return coulomb_cell(system.positions, system.cell, pbc, SETTINGS.tails)[0]


coulomb_energies = jax.jit(batch_coulomb_energy, static_argnames="settings")


def madelung_constants(names, settings, mesh=None) -> list[float]:
    """-E d/A of lattices in one batch, less the energy A/(2σ√π) of every Gaussian with itself."""
    own = 2.0 * COULOMB_CONSTANT / (2.0 * settings.smearing_width * math.sqrt(math.pi))
    systems = [lattice(name) for name in names]
    cutoff = None if mesh else settings.kspace_cutoff
    graph, multipoles = batch(systems, cutoff, mesh=mesh, tails=settings.tails)
    energies = coulomb_energies(graph, multipoles, settings=settings)
    return [
        -(float(energy) - own) * LATTICES[name][3] / COULOMB_CONSTANT
        for name, energy in zip(names, energies, strict=True)
    ]


@pytest.mark.parametrize("settings", [SETTINGS, ON_MESH], ids=["direct", "mesh"])
def test_crystals_a_layer_and_a_pair_of_ions_in_one_batch(settings):
    mesh = None
    if settings is ON_MESH:
        repeated = [name for name in LATTICES if any(LATTICES[name][2])]
        mesh = choose_mesh(
            ON_MESH, np.stack([repeated_cell(lattice(name)) for name in repeated]), 2
        )
    expected = [LATTICES[name][4] for name in LATTICES]
    np.testing.assert_allclose(
        madelung_constants(LATTICES, settings, mesh), expected, rtol=TOLERANCE
    )
