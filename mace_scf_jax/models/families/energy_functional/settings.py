"""Settings of the learned energy functional."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class EnergyFunctionalSettings:
    """Where the learned functional starts, what it can express, and how it is minimised.

    Raises:
        ValueError: the default hardness or a size is not positive.
    """

    default_hardness: float = 2.0
    """Stiffness of every multipole before learning, in eV/e²."""
    num_directions: int = 4
    """Number of learned directions per atom along which its multipoles are stiffer."""
    dense_max_unknowns: int = 128
    """Largest (padded) number of multipoles of a structure for which matrices are written out."""
    max_steps: int = 50
    """Newton steps after which the minimisation ends."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.default_hardness) and self.default_hardness > 0.0):
            raise ValueError(
                "default_hardness: expected a positive number (eV/e²), because charges would "
                f"otherwise grow without limit; found {self.default_hardness!r}"
            )
        for name in ("num_directions", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)!r}")
