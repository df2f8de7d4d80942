"""What the electrostatics benchmark computes: systems, density, features. NumPy and ASE only."""

from __future__ import annotations

import numpy as np
from water import water_box

MAX_L = 1
SMEARING_WIDTH = 1.5
FEATURE_MAX_L = 1
FEATURE_WIDTHS = (1.5, 2.0)
KSPACE_CUTOFF_FACTOR = 1.25
KSPACE_CUTOFF = KSPACE_CUTOFF_FACTOR * 2.25 / SMEARING_WIDTH * (MAX_L + 1) ** 0.3
MESH_ACCURACY = 1e-5

BATCH = (16, 24)
"""Structures in the batch of small systems, atoms in a structure."""
SIZES = (192, 648, 2000, 10000, 50000, 100000)
TASKS = ("energy", "energy_gradient", "features", "features_gradient")
"""Gradients are with respect to positions and multipoles, of the energy or of Σ v²."""


def structures(count: int, atoms: int) -> tuple[list, np.ndarray]:
    """Boxes of water, and neutral multipoles [atoms, 4] in storage order (Q, d_y, d_z, d_x)."""
    boxes = [water_box(atoms, seed=seed) for seed in range(count)]
    rng = np.random.default_rng(1)
    multipoles = []
    for box in boxes:
        charges = np.where(box.numbers == 8, -0.8, 0.4) + 0.05 * rng.normal(size=len(box))
        dipoles = 0.2 * rng.normal(size=(len(box), 3))
        multipoles.append(np.column_stack([charges - charges.mean(), dipoles]))
    return boxes, np.concatenate(multipoles)
