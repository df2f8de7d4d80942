"""EnergyFunctional: multipoles that minimise a learned, convex energy."""

from mace_scf_jax.backbones.backbone import Offer
from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.late import place
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.options import HardnessOptions
from mace_scf_jax.parameter_group import ParameterGroup

FAMILY = Family(
    name="EnergyFunctional",
    module=place("mace_scf_jax.models.families.energy_functional.model:EnergyFunctional"),
    settings=place(
        "mace_scf_jax.models.families.energy_functional.settings:EnergyFunctionalSettings"
    ),
    stored_as="energy_functional",
    max_l=MAX_L,
    options=(HardnessOptions,),
    groups={r"functional/": ParameterGroup("functional_readouts")},
    outputs=(
        "functional_energy",
        "chemical_potential",
        "charge_residual",
        "solver_steps",
        "solver_status",
    ),
    needs=frozenset({Offer.DEGREES}),
    responds_to_field=True,
)
