"""The model that both sides of the comparison build."""

from __future__ import annotations

R_MAX = 5.0
CHANNELS = 32
MAX_ELL = 3
CORRELATION = 3
RADIAL_MLP = (64, 64, 64)
NUM_INTERACTIONS = 2
AVERAGE_NEIGHBOURS = 52.0
SMEARING_WIDTH = 1.5
KSPACE_CUTOFF_FACTOR = 1.25
ELEMENTS = (1, 8)
ATOMIC_ENERGIES = (-13.6, -2040.0)

EVALUATION_SIZES = (24, 81, 192, 648)
TRAINING_BATCH = (4, 24)
"""Structures in a batch, atoms in a structure."""
