"""LocalCharges: multipoles read off the features of each atom."""

from mace_scf_jax.electrostatics.harmonics import MAX_L
from mace_scf_jax.models.families.local_charges.model import LocalCharges
from mace_scf_jax.models.family import Family
from mace_scf_jax.parameter_group import ParameterGroup

FAMILY = Family(
    name="LocalCharges",
    module=LocalCharges,
    max_l=MAX_L,
    groups={r"multipole_readout_\d+/": ParameterGroup("lr_source_maps")},
)
