"""Boxes of water for benchmarks. Needs NumPy and ASE only: both sides of a comparison import it."""

from __future__ import annotations

import ase
import numpy as np

ATOMS_PER_MOLECULE = 3
_MASS = 18.015
_GRAMS_PER_CM3 = 0.602214  # of 1 u/Å³
_OH_LENGTH = 0.9572
_HALF_ANGLE = np.deg2rad(104.52) / 2


def water_box(atoms: int, seed: int = 0) -> ase.Atoms:
    """Water at 1 g/cm³: molecules on a jittered cubic lattice, in random orientations."""
    molecules = atoms // ATOMS_PER_MOLECULE
    rng = np.random.default_rng(seed)
    length = (molecules * _MASS / _GRAMS_PER_CM3) ** (1 / 3)
    per_edge = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    sites = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = sites[rng.permutation(len(sites))[:molecules]]
    centres = (sites + 0.5) * length / per_edge + rng.normal(scale=0.1, size=(molecules, 3))
    shape = _OH_LENGTH * np.array(
        [
            [0.0, 0.0, 0.0],
            [np.sin(_HALF_ANGLE), np.cos(_HALF_ANGLE), 0.0],
            [-np.sin(_HALF_ANGLE), np.cos(_HALF_ANGLE), 0.0],
        ]
    )
    rotations = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(molecules)]
    positions = np.concatenate(
        [centre + shape @ rotation.T for centre, rotation in zip(centres, rotations, strict=True)]
    )
    return ase.Atoms("OH2" * molecules, positions=positions, cell=[length] * 3, pbc=True)
