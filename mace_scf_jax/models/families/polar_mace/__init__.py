"""PolarMACE: spin-resolved multipoles that answer the potential in a few learned steps."""

from mace_scf_jax.backbones.backbone import Offer
from mace_scf_jax.late import place
from mace_scf_jax.models.families.mace.options import ScaleShiftOptions
from mace_scf_jax.models.families.polar_mace.options import PolarMACEOptions
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.field_feature_options import FieldFeatureOptions
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

_LOCAL = ParameterGroup("lr_source_maps", "local_charges_weight_decay")

FAMILY = Family(
    name="PolarMACE",
    module=place("mace_scf_jax.models.families.polar_mace.model:PolarMACE"),
    settings=place("mace_scf_jax.models.families.polar_mace.settings:PolarMACESettings"),
    stored_as="polar_mace",
    max_l=1,
    options=(ScaleShiftOptions, FieldFeatureOptions, PolarMACEOptions),
    sources={degree: rf"spin_multipole_readout_\d+/linear/degree_{degree}" for degree in (0, 1)},
    silent=r"electron_energy/energy/(layer|bias)_3",
    groups={
        r"spin_multipole_readout_\d+/": _LOCAL,
        r"fukui_readout/": _LOCAL,
        r"spin_update_\d+/": ParameterGroup(
            "field_dependent_charges_map", "field_block_weight_decay"
        ),
        r"electron_energy/": ParameterGroup("local_electron_energy", WEIGHT_DECAY),
        r"feature_mixer_\d+/": ParameterGroup("layer_feature_mixer", WEIGHT_DECAY),
    },
    needs=frozenset({Offer.DEGREES}),
    outputs=("field_energy", "local_multipoles", "spin_multipoles", "spins"),
    responds_to_field=True,
    initialise=place("mace_scf_jax.models.families.polar_mace.settings:first_parameters"),
)
