"""MACE and ScaleShiftMACE: short-range energies without charges."""

from mace_scf_jax.late import place
from mace_scf_jax.models.families.mace.options import ScaleShiftOptions
from mace_scf_jax.models.family import Family

PLAIN = Family(name="MACE", module=place("mace_scf_jax.models.families.mace.model:MACE"))

SCALE_SHIFT = Family(
    name="ScaleShiftMACE",
    module=place("mace_scf_jax.models.families.mace.model:ScaleShiftMACE"),
    settings=place("mace_scf_jax.models.families.mace.model:ScaleShiftSettings"),
    stored_flat=("scale", "shift"),
    options=(ScaleShiftOptions,),
)
