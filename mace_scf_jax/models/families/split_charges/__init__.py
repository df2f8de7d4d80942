"""LocalSplitCharges: formal charges, and charge transferred along bonds."""

from mace_scf_jax.backbones.backbone import Offer
from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.late import place
from mace_scf_jax.models.families.split_charges.options import SplitChargeOptions
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.options import FormalChargeOptions
from mace_scf_jax.parameter_group import ParameterGroup

FAMILY = Family(
    name="LocalSplitCharges",
    module=place("mace_scf_jax.models.families.split_charges.model:LocalSplitCharges"),
    settings=place("mace_scf_jax.models.families.split_charges.settings:SplitChargeSettings"),
    stored_as="split_charges",
    stored_flat=("formal_charges",),
    max_l=MAX_L,
    options=(FormalChargeOptions, SplitChargeOptions),
    sources={0: r"bond_transfer_\d+/output", 1: r"multipole_readout_\d+/"},
    mirror=r"bond_transfer_\d+/output|multipole_readout_\d+/linear/",
    groups={
        r"(multipole_readout|bond_transfer|oxidation_state_gate)_\d+/": ParameterGroup(
            "lr_source_maps"
        ),
        r"polarizability_readout_\d+/": ParameterGroup("polarizability_readouts"),
        r"oxidation_state_mixer/": ParameterGroup("oxidation_state_mixer"),
    },
    needs=frozenset({Offer.EDGES, Offer.EMBEDDING}),
    formal_charges=True,
)
