"""FixedChargeBaselinedMACE: formal charges that never change."""

from mace_scf_jax.late import place
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.options import FormalChargeOptions

FAMILY = Family(
    name="FixedChargeBaselinedMACE",
    module=place("mace_scf_jax.models.families.fixed_charges.model:FixedChargeBaselinedMACE"),
    settings=place("mace_scf_jax.models.formal_charges:FormalChargeSettings"),
    stored_flat=("formal_charges",),
    max_l=0,
    options=(FormalChargeOptions,),
    formal_charges=True,
)
