"""What settings of the electrostatics may choose from."""

from __future__ import annotations

import enum

MAX_L = 3
"""Highest degree of multipoles and field features."""


class SummationMethod(enum.StrEnum):
    """How the sums over reciprocal vectors are done."""

    DIRECT = "direct"
    """Term by term; cost grows as atoms × vectors."""
    MESH = "mesh"
    """On a grid, by fast Fourier transforms; cost grows as atoms × log(atoms)."""
    AUTO = "auto"
    """The cheaper one for each structure (see `mesh_choice`)."""
