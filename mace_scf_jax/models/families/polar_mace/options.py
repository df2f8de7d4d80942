"""The training options of the family PolarMACE."""

from __future__ import annotations

from pydantic import Field

from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import PositiveWholeNumber


class PolarMACEOptions(OptionGroup):
    """Steps of the multipoles (PolarMACE)"""

    decide_weights = False

    num_recursion_steps: PositiveWholeNumber = Field(
        default=2, description="how often the multipoles are changed by the potential they cause"
    )
