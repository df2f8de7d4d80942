"""The hardness of atoms: what it costs to charge one."""

from __future__ import annotations

import math

from pydantic import Field

from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import PositiveNumber


class HardnessOptions(OptionGroup):
    """Hardness (MACEQEq, EnergyFunctional)"""

    decide_weights = False

    default_hardness: PositiveNumber = Field(
        default=2.0,
        description="hardness of every atom in eV/e², unless it is read; EnergyFunctional: before "
        "learning",
    )


def check_hardness(hardness: float) -> None:
    """Refuse a default hardness in eV/e² that is not positive.

    Raises:
        ValueError: says what was found.
    """
    if not (math.isfinite(hardness) and hardness > 0.0):
        raise ValueError(
            "default_hardness: expected a positive number (eV/e²), because charges would "
            f"otherwise grow without limit; found {hardness!r}"
        )
