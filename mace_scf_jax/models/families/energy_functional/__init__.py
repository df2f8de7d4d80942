"""EnergyFunctional: multipoles that minimise a learned, convex energy."""

from mace_scf_jax.backbones import Offer
from mace_scf_jax.electrostatics.harmonics import MAX_L
from mace_scf_jax.models.electrostatics import HardnessOptions
from mace_scf_jax.models.families.energy_functional.model import EnergyFunctional
from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
from mace_scf_jax.models.family import Family
from mace_scf_jax.parameter_group import ParameterGroup

FAMILY = Family(
    name="EnergyFunctional",
    module=EnergyFunctional,
    settings=EnergyFunctionalSettings,
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
