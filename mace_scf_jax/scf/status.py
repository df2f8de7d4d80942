"""How searches end."""

from __future__ import annotations

import enum


class SolverStatus(enum.IntEnum):
    """How the search for a system's solution ended: of a fixed point, or of a minimum."""

    CONVERGED = 0
    """The residual is below the tolerance, and the charge is right."""
    MAX_STEPS = 1
    """Still on the way when the steps were used up."""
    DIVERGED = 2
    """The state grew beyond all bounds."""
    SINGULAR = 3
    """No step makes the residual smaller: the charge does not answer to the level, or the function
    to be minimised is not convex."""
