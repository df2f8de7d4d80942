"""Settings of charge equilibration."""

from __future__ import annotations

import dataclasses
import math

DENSE_MAX_ATOMS = 64
"""Up to here writing out the matrix is faster than conjugate gradients."""


@dataclasses.dataclass(frozen=True)
class ChargeEquilibrationSettings:
    """Where electronegativities and hardnesses come from, and how charges are solved for.

    Raises:
        ValueError: the default hardness is not positive.
    """

    read_enegs: bool = False
    """Add the electronegativity of each atom in the data to the learned one."""
    read_hardness: bool = False
    """Start from the hardness of each atom in the data instead of the default."""
    train_hardness: bool = False
    """Add a learned hardness."""
    default_hardness: float = 2.0
    """Hardness in eV/e² where none is read."""
    dense_max_atoms: int = DENSE_MAX_ATOMS
    """Largest (padded) number of atoms of a structure for which the matrix is written out."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.default_hardness) and self.default_hardness > 0.0):
            raise ValueError(
                "default_hardness: expected a positive number (eV/e²), because charges would "
                f"otherwise grow without limit; found {self.default_hardness!r}"
            )
