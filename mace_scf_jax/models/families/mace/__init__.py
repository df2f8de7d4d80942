"""MACE and ScaleShiftMACE: short-range energies without charges."""

from mace_scf_jax.models.families.mace.model import (
    MACE,
    ScaleShiftMACE,
    ScaleShiftOptions,
    ScaleShiftSettings,
)
from mace_scf_jax.models.family import Family

PLAIN = Family(name="MACE", module=MACE)

SCALE_SHIFT = Family(
    name="ScaleShiftMACE",
    module=ScaleShiftMACE,
    settings=ScaleShiftSettings,
    stored_flat=("scale", "shift"),
    options=(ScaleShiftOptions,),
)
