"""LocalCharges: multipoles read off the features of each atom."""

from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.late import place
from mace_scf_jax.models.families.local_charges.options import LocalChargesOptions
from mace_scf_jax.models.family import Family
from mace_scf_jax.parameter_group import ParameterGroup

FAMILY = Family(
    name="LocalCharges",
    module=place("mace_scf_jax.models.families.local_charges.model:LocalCharges"),
    settings=place("mace_scf_jax.models.families.local_charges.settings:LocalChargesSettings"),
    stored_flat=(
        "conserve_charge",
        "element_charges",
        "free_charges",
        "scale",
        "shift",
        "charge_scale",
        "read_like_energies",
    ),
    max_l=MAX_L,
    options=(LocalChargesOptions,),
    sources={degree: rf"multipole_readout_\d+/linear/degree_{degree}" for degree in (0, 1)},
    mirror=r"multipole_readout_\d+/LAST|conservation/element_charges",
    groups={r"(multipole_readout_\d+|conservation)/": ParameterGroup("lr_source_maps")},
)
