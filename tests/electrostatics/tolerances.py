"""How deviations are measured, and the one table of tolerances of the electrostatics tests."""

from __future__ import annotations

import numpy as np

IDENTITY = 1e-12
"""Relative deviation between two exact ways to compute the same number."""

FIRST_DERIVATIVE = 1e-6
"""Against central differences."""

SECOND_DERIVATIVE = 1e-5
"""Against central differences of first derivatives."""


def assert_close(actual, expected, tolerance: float) -> None:
    """The largest deviation is at most `tolerance` times the largest expected magnitude."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        actual, expected, rtol=0.0, atol=tolerance * max(np.abs(expected).max(), 1e-30)
    )
