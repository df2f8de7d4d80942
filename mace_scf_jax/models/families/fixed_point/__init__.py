"""FixedPoint: multipoles that answer the potential that they cause."""

from mace_scf_jax.backbones import Offer
from mace_scf_jax.electrostatics.harmonics import MAX_L
from mace_scf_jax.models.families.fixed_point.measured import scale_charge_heads
from mace_scf_jax.models.families.fixed_point.model import FixedPoint
from mace_scf_jax.models.families.fixed_point.options import FixedPointOptions
from mace_scf_jax.models.families.fixed_point.self_consistency import Iterated
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.family import Family
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

FAMILY = Family(
    name="FixedPoint",
    module=FixedPoint,
    settings=FixedPointSettings,
    stored_as="fixed_point",
    max_l=MAX_L,
    options=(FixedPointOptions,),
    groups={
        r"multipole_readout_\d+/": ParameterGroup("lr_source_maps", "local_charges_weight_decay"),
        r"density_update/": ParameterGroup(
            "field_dependent_charges_map", "field_block_weight_decay"
        ),
        r"field_readout/": ParameterGroup("local_electron_energy", WEIGHT_DECAY),
        r"feature_mixer_\d+/": ParameterGroup("layer_feature_mixer", WEIGHT_DECAY),
    },
    needs=frozenset({Offer.DEGREES, Offer.EDGES}),
    solve=Iterated(),
    outputs=(
        "field_energy",
        "local_multipoles",
        "field_features",
        "electrostatic_potentials",
        "fermi_level",
        "scf_status",
        "scf_steps",
        "scf_evaluations",
        "scf_residual",
        "scf_charge_error",
        "scf_fallback",
        "scf_history",
    ),
    responds_to_field=True,
    initialise=scale_charge_heads,
)
