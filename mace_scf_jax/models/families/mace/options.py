"""The training options of families whose energies are scaled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mace_scf_jax.options import OptionGroup


class ScaleShiftOptions(OptionGroup):
    """Scale of the energy (ScaleShiftMACE, PolarMACE)"""

    decide_weights = False

    scaling: Literal["rms_forces_scaling", "std_scaling", "no_scaling"] = Field(
        default="rms_forces_scaling",
        description="scale of the interaction energy",
    )
