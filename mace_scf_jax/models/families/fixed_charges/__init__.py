"""FixedChargeBaselinedMACE: formal charges that never change."""

from mace_scf_jax.models.families.fixed_charges.model import FixedChargeBaselinedMACE
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.formal_charges import FormalChargeOptions, FormalChargeSettings

FAMILY = Family(
    name="FixedChargeBaselinedMACE",
    module=FixedChargeBaselinedMACE,
    settings=FormalChargeSettings,
    stored_flat=("formal_charges",),
    max_l=0,
    options=(FormalChargeOptions,),
    formal_charges=True,
)
