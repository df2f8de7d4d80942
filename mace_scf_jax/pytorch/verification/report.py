"""Deviations between computed and reference outputs."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest deviation of one output from its reference."""

    output: str
    absolute: float
    """Largest absolute deviation."""
    relative: float
    """Largest absolute deviation over the largest reference magnitude."""
    tolerance: float
    """Largest relative deviation allowed."""
    floor: float
    """Absolute deviation that always passes (for references that are zero up to round-off)."""

    @property
    def passed(self) -> bool:
        """Whether the deviation is within its tolerance; NaN never is."""
        return bool(self.relative <= self.tolerance or self.absolute <= self.floor)


def deviation(
    output: str,
    computed: np.ndarray | Array,
    expected: np.ndarray,
    *,
    tolerance: float,
    floor: float = 1e-12,
) -> Deviation:
    """Compare one output with its reference.

    Args:
        output: its name.
        computed: what we compute.
        expected: the reference, of the same shape.
        tolerance: largest relative deviation allowed.
        floor: absolute deviation that always passes.

    Raises:
        ValueError: the shapes differ.
    """
    computed, expected = np.asarray(computed), np.asarray(expected)
    if computed.shape != expected.shape:
        raise ValueError(f"{output}: expected shape {expected.shape}, computed {computed.shape}")
    if expected.size == 0:
        return Deviation(output, 0.0, 0.0, tolerance, floor)
    absolute = float(np.max(np.abs(computed - expected)))
    magnitude = float(np.max(np.abs(expected)))
    relative = absolute / magnitude if magnitude > 0 else (0.0 if absolute == 0 else np.inf)
    return Deviation(output, absolute, relative, tolerance, floor)
