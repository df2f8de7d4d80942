"""FixedPoint: multipoles that answer the potential that they cause."""

from mace_scf_jax.backbones.backbone import Offer
from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.late import place
from mace_scf_jax.models.families.fixed_point.options import FixedPointOptions
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.field_feature_options import FieldFeatureOptions
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

FAMILY = Family(
    name="FixedPoint",
    module=place("mace_scf_jax.models.families.fixed_point.model:FixedPoint"),
    settings=place("mace_scf_jax.models.families.fixed_point.settings:FixedPointSettings"),
    stored_as="fixed_point",
    max_l=MAX_L,
    options=(FieldFeatureOptions, FixedPointOptions),
    sources={degree: rf"multipole_readout_\d+/linear/degree_{degree}" for degree in (0, 1)},
    mirror=r"multipole_readout_\d+/linear/|density_update/potential_embedding/features/",
    silent=r"field_readout/energy/",
    groups={
        r"multipole_readout_\d+/": ParameterGroup("lr_source_maps", "local_charges_weight_decay"),
        r"density_update/": ParameterGroup(
            "field_dependent_charges_map", "field_block_weight_decay"
        ),
        r"field_readout/": ParameterGroup("local_electron_energy", WEIGHT_DECAY),
        r"feature_mixer_\d+/": ParameterGroup("layer_feature_mixer", WEIGHT_DECAY),
    },
    needs=frozenset({Offer.DEGREES, Offer.EDGES}),
    solve=place("mace_scf_jax.models.families.fixed_point.self_consistency:ITERATED"),
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
    initialise=place("mace_scf_jax.models.families.fixed_point.measured:scale_charge_heads"),
)
