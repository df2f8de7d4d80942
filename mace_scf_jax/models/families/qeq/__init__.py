"""MACEQEq: charges equilibrated over learned electronegativities."""

from mace_scf_jax.late import place
from mace_scf_jax.models.families.qeq.options import ChargeEquilibrationOptions
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.options import HardnessOptions
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

FAMILY = Family(
    name="MACEQEq",
    module=place("mace_scf_jax.models.families.qeq.model:MACEQEq"),
    settings=place("mace_scf_jax.models.families.qeq.settings:ChargeEquilibrationSettings"),
    stored_as="charge_equilibration",
    max_l=0,
    options=(ChargeEquilibrationOptions, HardnessOptions),
    sources={0: r"electronegativity_readout_\d+/linear/"},
    mirror=r"electronegativity_readout_\d+/LAST",
    groups={
        r"electronegativity_readout_\d+/": ParameterGroup("enegs_readouts", WEIGHT_DECAY),
        r"hardness_readout_\d+/": ParameterGroup("hardness_readouts", WEIGHT_DECAY),
    },
    outputs=(
        "equilibration_energy",
        "electronegativity",
        "hardness",
        "chemical_potential",
        "charge_residual",
    ),
    responds_to_field=True,
)
