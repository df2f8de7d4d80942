"""Settings of a model from its configuration in the PyTorch packages MACE and MACE_SCF, and back.

A configuration is plain data: ``model`` (name of the class), ``atomic_numbers``, ``backbone``
(arguments of the MACE constructor), ``options`` (those of the family), and for `FixedPoint`
``fixedpoint_update_config`` and ``field_readout_config``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mace_scf_jax.backbones import MACESettings
from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics import ElectrostaticsSettings, FieldFeatureSettings
from mace_scf_jax.models.families.fixed_point.choices import SCALED_UPDATES
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.families.local_charges.settings import (
    Conservation,
    LocalChargesSettings,
)
from mace_scf_jax.models.families.mace.model import ScaleShiftSettings
from mace_scf_jax.models.families.polar_mace.settings import PolarMACESettings
from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings
from mace_scf_jax.models.family import FAMILIES, Family, FamilySettings
from mace_scf_jax.models.field_feature_norms import expanded_norms
from mace_scf_jax.models.field_feature_options import FieldFeatureOptions
from mace_scf_jax.models.formal_charges import FormalChargeSettings
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.pytorch.configuration_aenet import AENET_FAMILY, aenet_settings
from mace_scf_jax.units import FIELD_CONSTANT

logger = logging.getLogger(__name__)

Configuration = dict[str, Any]

REFERENCE_MOLECULE_EXPONENT = 0.3333
"""What the reference writes for the cube root in the molecule correction of the energy."""

REFERENCE_FEATURE_EXPONENT = 0.333333
"""What the reference writes for the cube root in the molecule correction of features."""

REFERENCE_OXIDATION_STATE_RANGE = (-4.0, 4.0)
"""Range of formal charges of the reference's transfer block, and of its mixer if none is given."""

_BACKBONE_NAMES = {"num_bessel": "num_radial_basis", "num_polynomial_cutoff": "num_cutoff_basis"}
"""Our name of a constructor argument of the reference, where it differs."""

_BACKBONE_ARGUMENTS = (
    "r_max",
    "num_bessel",
    "num_polynomial_cutoff",
    "max_ell",
    "interaction_first",
    "interaction",
    "num_interactions",
    "hidden_irreps",
    "MLP_irreps",
    "correlation",
    "avg_num_neighbors",
    "radial_MLP",
    "radial_type",
    "gate",
)
"""Constructor arguments of the reference that are settings of the backbone."""

_BACKBONE_OPTIONS = (
    "distance_transform",
    "pair_repulsion",
    "use_linear_final_readout",
    "apply_cutoff",
    "use_edge_irreps_first",
    "use_agnostic_product",
    "use_last_readout_only",
    "readout_cls",
    "embedding_specs",
    "use_embedding_readout",
)
"""Options of the reference that are settings of the backbone, by the same names."""

POLAR_MACE = "PolarMACE"
_BACKBONE_DEFAULTS: dict[str, dict[str, Any]] = {POLAR_MACE: {"use_agnostic_product": True}}
"""Options of classes of the reference that have other defaults than the backbone."""

_EQUILIBRATION_SWITCHES = ("read_enegs", "read_hardness", "train_hardness")


_ON_THE_CUTOFF = 1e-12
"""Relative distance from the cutoff at which wavevectors are on it, and count in les."""
MACELES = "MACELES"
"""A ScaleShiftMACE with the Coulomb energy of latent charges (package les)."""
_OUR_NAMES = {MACELES: "LocalCharges"}
"""Our name of a family of the reference, where it differs."""


class TorchConfigurationError(ValueError):
    """A configuration of the PyTorch packages has no counterpart here, or the other way round."""


def settings_from_configuration(configuration: Mapping[str, Any]) -> ModelSettings:
    """Settings of the model that a configuration describes.

    The rounded cube root of the reference's molecule correction is kept, so that its numbers come
    out.

    Args:
        configuration: of the PyTorch model.

    Raises:
        TorchConfigurationError: a family that this version does not have, or an entry is missing.
        ValueError: an entry has a value that makes no sense.
    """
    try:
        name, options = configuration["model"], configuration["options"]
        if name == AENET_FAMILY:
            return aenet_settings(configuration)
        if name not in OWN_SETTINGS:
            raise TorchConfigurationError(
                f"model: expected one of {', '.join(OWN_SETTINGS)}, found {name!r}"
            )
        family = FAMILIES[_OUR_NAMES.get(name, name)]
        is_charged = family.is_charged and name != MACELES
        electrostatics = _electrostatics(family, options) if is_charged else None
        return ModelSettings(
            family=family.name,
            backbone=_backbone(configuration, charged=is_charged),
            atomic_energies=_atomic_energies(configuration),
            electrostatics=_latent_sums(options) if name == MACELES else electrostatics,
            own=OWN_SETTINGS[name](configuration),
        )
    except KeyError as error:
        raise TorchConfigurationError(f"configuration: found no entry {error}") from error


def _backbone(configuration: Mapping[str, Any], *, charged: bool) -> MACESettings:
    options, arguments = configuration["options"], dict(configuration["backbone"])
    arguments.pop("atomic_energies", None)
    unknown = arguments.keys() - {*_BACKBONE_ARGUMENTS, "edge_irreps"}
    if unknown:
        raise TorchConfigurationError(
            f"configuration: found backbone arguments {sorted(unknown)}, which are not known here"
        )
    chosen = _BACKBONE_DEFAULTS.get(configuration["model"], {}) | {
        name: options[name] for name in _BACKBONE_OPTIONS if name in options
    }
    if charged:  # they have none
        chosen.pop("pair_repulsion", None)
    keeps_degrees = charged or options.get("keep_last_layer_irreps", False)
    return MACESettings(
        elements=tuple(configuration["atomic_numbers"]),
        # a plain MACE of one layer keeps all degrees in it, though it reads the scalars only
        scalar_last_layer=not keeps_degrees and arguments["num_interactions"] > 1,
        **chosen,
        **{_BACKBONE_NAMES.get(name, name): value for name, value in arguments.items()},
    )


def _atomic_energies(configuration: Mapping[str, Any]) -> tuple[float, ...]:
    heads = configuration["options"].get("heads") or ("Default",)
    if len(heads) > 1:
        raise TorchConfigurationError(
            f"heads: expected one, found {', '.join(heads)}; "
            "mace_scf_jax.pytorch.heads.with_head makes the model of one"
        )
    return tuple(np.ravel(configuration["backbone"]["atomic_energies"]).tolist())


def _electrostatics(family: Family, options: Mapping[str, Any]) -> ElectrostaticsSettings:
    features = None
    if FieldFeatureOptions in family.options:
        features = FieldFeatureSettings(
            max_l=options["field_feature_max_l"],
            widths=tuple(options["field_feature_widths"]),
            include_self_interaction=options["field_si"],
        )
    return ElectrostaticsSettings(
        max_l=options["atomic_multipoles_max_l"] if family.max_l else 0,
        smearing_width=options["atomic_multipoles_smearing_width"],
        kspace_cutoff_factor=options["kspace_cutoff_factor"],
        boundary=options.get("pbc_handling", BoundaryMode.DISPLACED_CHARGES)
        if family.name == POLAR_MACE  # whose class decides by itself
        else options["pbc_handling"],
        include_self_interaction=options["include_electrostatic_self_interaction"],
        features=features,
        molecule_exponent=REFERENCE_MOLECULE_EXPONENT
        if features is None
        else REFERENCE_FEATURE_EXPONENT,
    )


def _latent_sums(options: Mapping[str, Any]) -> ElectrostaticsSettings:
    """The sums of les, whose σ is √2 times that of a Gaussian charge, with a cutoff that is set.

    Slabs, which mace puts into a cell of its own making and repeats in it, are those of `exact`.
    """
    attributes = options["les_attributes"]
    width = attributes["sigma"] / math.sqrt(2.0)
    exact = ElectrostaticsSettings(0, width, kspace_cutoff_factor=1.0, boundary=BoundaryMode.EXACT)
    cutoff = 2.0 * math.pi / attributes["dl"] * (1.0 + _ON_THE_CUTOFF)
    return dataclasses.replace(
        exact,
        kspace_cutoff_factor=cutoff / exact.kspace_cutoff,
        include_self_interaction=not attributes["remove_self_interaction"],
    )


def _latent_charges(configuration: Mapping[str, Any]) -> LocalChargesSettings:
    """Charges in e, by which the energy is the same with the constants of nature."""
    options = configuration["options"]
    for name in ("use_last_readout_only", "use_linear_final_readout"):
        if options.get(name, False):
            raise TorchConfigurationError(f"{name}: expected a {MACELES} without it, found one")
    norm_factor = options["les_attributes"]["norm_factor"]
    return LocalChargesSettings(
        scale=options["atomic_inter_scale"],
        shift=options["atomic_inter_shift"],
        charge_scale=math.sqrt(2.0 * norm_factor / FIELD_CONSTANT),
        read_like_energies=True,
    )


def _nothing(configuration: Mapping[str, Any]) -> FamilySettings:
    return FamilySettings()


def _local_charges(configuration: Mapping[str, Any]) -> LocalChargesSettings:
    return LocalChargesSettings()


def _scale_shift(configuration: Mapping[str, Any]) -> ScaleShiftSettings:
    return ScaleShiftSettings(**_scale_and_shift(configuration["options"]))


def _scale_and_shift(options: Mapping[str, Any]) -> dict[str, float]:
    """Both of the only head, which may stand in a list."""
    (scale,) = np.ravel(options.get("atomic_inter_scale", 1.0)).tolist()
    (shift,) = np.ravel(options.get("atomic_inter_shift", 0.0)).tolist()
    return {"scale": scale, "shift": shift}


def _polar_mace(configuration: Mapping[str, Any]) -> PolarMACESettings:
    options = configuration["options"]
    return PolarMACESettings(
        **_scale_and_shift(options),
        field_feature_norms=tuple(options["field_feature_norms"]),
        num_recursion_steps=options["num_recursion_steps"],
        include_field_energy=options["add_local_electron_energy"],
    )


def _formal_charges(configuration: Mapping[str, Any]) -> FormalChargeSettings:
    return FormalChargeSettings(configuration["options"].get("atomic_formal_charges"))


def _charge_equilibration(configuration: Mapping[str, Any]) -> ChargeEquilibrationSettings:
    options = configuration["options"]
    return ChargeEquilibrationSettings(
        default_hardness=options["default_hardness"],
        **{name: options.get(name, False) for name in _EQUILIBRATION_SWITCHES},
    )


def _split_charges(configuration: Mapping[str, Any]) -> SplitChargeSettings:
    options = configuration["options"]
    return SplitChargeSettings(
        formal_charges=options.get("atomic_formal_charges"),
        transfer_block=options["static_bond_transfer_block"],
        transfer_range=REFERENCE_OXIDATION_STATE_RANGE,
        oxidation_state_mixer=options["oxidation_state_mixer"],
        oxidation_state_range=options.get("oxidation_state_range", REFERENCE_OXIDATION_STATE_RANGE),
        polarizability=options["compute_polarizability"],
    )


def _fixed_point(configuration: Mapping[str, Any]) -> FixedPointSettings:
    options, update = configuration["options"], configuration["fixedpoint_update_config"]
    return FixedPointSettings(
        field_feature_norms=tuple(options["field_feature_norms"]),
        fermi_level_offset=options["fermi_level_offset"],
        update=update["type"],
        potential_embedding=update["potential_embedding_cls"],
        nonlinearity=update["nonlinearity_cls"],
        correlation=update.get("correlation", 1),
        skip_connection=update.get("use_sc", True),
        field_readout=configuration["field_readout_config"]["type"],
        include_field_energy=options["add_local_electron_energy"],
        linear_local_multipoles=options["use_linear_local_charges"],
        atom_density_scaling=tuple(options["atom_density_scaling"]),
    )


OWN_SETTINGS: dict[str, Callable[[Mapping[str, Any]], FamilySettings]] = {
    "MACE": _nothing,
    "ScaleShiftMACE": _scale_shift,
    "LocalCharges": _local_charges,
    MACELES: _latent_charges,
    "LocalSplitCharges": _split_charges,
    "FixedChargeBaselinedMACE": _formal_charges,
    "MACEQEq": _charge_equilibration,
    "FixedPoint": _fixed_point,
    POLAR_MACE: _polar_mace,
}
"""Families whose models can be exchanged with the PyTorch packages, and where their own settings
stand in a configuration."""


def configuration_from_settings(settings: ModelSettings) -> Configuration:
    """The configuration of the PyTorch model that has the same weights and gives the same numbers.

    Raises:
        TorchConfigurationError: the PyTorch packages have no such model.
    """
    require_counterpart(settings)
    backbone = settings.backbone
    arguments = {
        name: getattr(backbone, _BACKBONE_NAMES.get(name, name)) for name in _BACKBONE_ARGUMENTS
    }
    arguments["radial_MLP"] = list(backbone.radial_MLP)
    if not isinstance(backbone.correlation, int):
        arguments["correlation"] = list(backbone.correlation)
    if backbone.edge_irreps is not None:
        arguments["edge_irreps"] = backbone.edge_irreps
    arguments["atomic_energies"] = list(settings.atomic_energies)
    options: dict[str, Any] = {name: getattr(backbone, name) for name in _BACKBONE_OPTIONS}
    options["embedding_specs"] = {entry.name: entry.to_spec() for entry in backbone.embedding_specs}
    last = backbone.num_interactions - 1
    if last > 0 and settings.electrostatics is None and not backbone.scalar_last_layer:
        options["keep_last_layer_irreps"] = True
    own = settings.own
    if isinstance(own, ScaleShiftSettings):
        options |= {"atomic_inter_scale": own.scale, "atomic_inter_shift": own.shift}
    if settings.electrostatics is not None:
        options |= _electrostatic_options(settings.electrostatics)
    if isinstance(own, PolarMACESettings):
        options |= {
            "field_feature_norms": list(own.field_feature_norms),
            "num_recursion_steps": own.num_recursion_steps,
            "add_local_electron_energy": own.include_field_energy,
            **_POLAR_PARTS,
        }
        if settings.density.boundary is BoundaryMode.DISPLACED_CHARGES:
            del options["pbc_handling"]  # the only one that the class has
    if isinstance(own, FormalChargeSettings) and own.formal_charges is not None:
        options["atomic_formal_charges"] = list(own.formal_charges)
    configuration = {
        "model": settings.family,
        "atomic_numbers": list(settings.elements),
        "backbone": arguments,
        "options": options,
    }
    if isinstance(own, SplitChargeSettings):
        options |= {
            "formal_charges_from_data": own.formal_charges is None,
            "static_bond_transfer_block": own.transfer_block,
            "oxidation_state_mixer": own.oxidation_state_mixer,
            "oxidation_state_range": list(own.oxidation_state_range),
            "compute_polarizability": own.polarizability,
        }
    if isinstance(own, ChargeEquilibrationSettings):
        names = ("default_hardness", *_EQUILIBRATION_SWITCHES)
        options |= {name: getattr(own, name) for name in names}
    if isinstance(own, FixedPointSettings):
        configuration |= _fixed_point_parts(own, options, settings.elements)
    return configuration


_POLAR_PARTS: Configuration = {
    "fixedpoint_update_config": {
        "type": "AgnosticEmbeddedOneBodyVariableUpdate",
        "potential_embedding_cls": "AgnosticChargeBiasedLinearPotentialEmbedding",
        "nonlinearity_cls": "MLPNonLinearity",
    },
    "field_readout_config": {"type": "OneBodyMLPFieldReadout"},
}
"""The parts that all PolarMACE models have."""


def _electrostatic_options(electrostatics: ElectrostaticsSettings) -> dict[str, Any]:
    options = {
        "kspace_cutoff_factor": electrostatics.kspace_cutoff_factor,
        "atomic_multipoles_max_l": electrostatics.max_l,
        "atomic_multipoles_smearing_width": electrostatics.smearing_width,
        "include_electrostatic_self_interaction": electrostatics.include_self_interaction,
        "pbc_handling": _pbc_handling(electrostatics.boundary),
    }
    if electrostatics.features is not None:
        options |= {
            "field_feature_max_l": electrostatics.features.max_l,
            "field_feature_widths": list(electrostatics.features.widths),
            "field_si": electrostatics.features.include_self_interaction,
        }
    return options


def _pbc_handling(boundary: BoundaryMode) -> str:
    """The boundary condition of the PyTorch packages that comes closest; says where it differs."""
    if boundary is BoundaryMode.DISPLACED_CHARGES:
        return BoundaryMode.AUTO.value
    if boundary is not BoundaryMode.EXACT:
        return boundary.value
    logger.warning(
        "boundary exact: the PyTorch packages have no such condition, the export has "
        "mixed_periodic: open structures and charged slabs have other energies and forces there"
    )
    return BoundaryMode.MIXED_PERIODIC.value


def _fixed_point_parts(
    choices: FixedPointSettings, options: dict[str, Any], elements: tuple[int, ...]
) -> Configuration:
    """Entries of a configuration beside the options, which are completed in place."""
    scaling = choices.atom_density_scaling or (1.0,) * len(elements)
    options |= {
        "add_local_electron_energy": choices.include_field_energy,
        "field_feature_norms": list(choices.field_feature_norms),
        "fermi_level_offset": choices.fermi_level_offset,
        "use_linear_local_charges": choices.linear_local_multipoles,
        "atom_density_scaling": list(scaling),
    }
    return {
        "fixedpoint_update_config": {
            "type": choices.update,
            "potential_embedding_cls": choices.potential_embedding,
            "nonlinearity_cls": choices.nonlinearity,
            "correlation": choices.correlation,
            "use_sc": choices.skip_connection,
        },
        "field_readout_config": {"type": choices.field_readout},
    }


def require_counterpart(settings: ModelSettings) -> None:
    """Refuse settings of which the PyTorch packages have no model.

    Raises:
        TorchConfigurationError: saying what they lack.
    """
    if settings.family not in OWN_SETTINGS:
        raise TorchConfigurationError(
            f"model {settings.family}: the PyTorch packages have no such family; they have "
            f"{', '.join(OWN_SETTINGS)}"
        )
    charged, backbone, own = settings.electrostatics is not None, settings.backbone, settings.own
    if isinstance(own, LocalChargesSettings) and own.read_like_energies:
        raise TorchConfigurationError(
            f"model {settings.family}: a {MACELES} that was imported cannot be exported"
        )
    if not isinstance(backbone, MACESettings):
        raise TorchConfigurationError(
            f"backbone: expected MACE, which the PyTorch packages have, found {backbone.name}"
        )
    if backbone.heads:
        raise TorchConfigurationError(
            f"heads: expected a model of one, found {', '.join(backbone.heads)}; "
            "`Model.of_head` makes it"
        )
    expected = backbone.max_hidden_degree
    found = backbone.layer_max_degree(backbone.num_interactions - 1)
    if charged and found != expected:
        raise TorchConfigurationError(
            f"model {settings.family}: in the PyTorch packages its last layer has the degrees up "
            f"to {expected}, here up to {found}"
        )
    expanded = REFERENCE_OXIDATION_STATE_RANGE
    if isinstance(own, SplitChargeSettings) and own.transfer_range != expanded:
        raise TorchConfigurationError(
            f"transfer_range: the PyTorch packages expand formal charges in the range "
            f"{expanded}, this model in {own.transfer_range}"
        )
    if isinstance(own, LocalChargesSettings) and own.conserve_charge != Conservation.NONE:
        raise TorchConfigurationError(
            "conserve_charge: the PyTorch packages conserve no charge, expected none, found "
            f"{own.conserve_charge}"
        )
    if charged and settings.electrostatics.surplus_at_centre and not own.conserves_charge:
        raise TorchConfigurationError(
            "surplus_at_centre: the PyTorch packages refer charge beyond total_charge to the "
            "origin; `Model.with_surplus('origin')` does so too"
        )
    for name, expected in (("eps_infty", 1.0), ("keep_neutral", False)):
        if charged and (found := getattr(settings.electrostatics, name)) != expected:
            raise TorchConfigurationError(
                f"{name}: the PyTorch packages have no such setting, expected {expected}, found "
                f"{found}"
            )
    if charged and settings.electrostatics.kspace_fade != 0.0:
        raise TorchConfigurationError(
            "kspace_fade: the reciprocal sums of the PyTorch packages have a sharp cutoff, "
            f"expected 0, found {settings.electrostatics.kspace_fade:g}"
        )


UPDATE = "field_dependent_charges_map"
"""Name of the density update of FixedPoint."""
FAMILIES_WITH_HEADS = ("MACE", "ScaleShiftMACE", "MACEQEq", POLAR_MACE)
"""Families whose atomic energies have one row per head."""


def state_constants(settings: ModelSettings) -> dict[str, np.ndarray]:
    """Buffers that hold settings of a model, by their state-dict names."""
    energies = np.array(settings.atomic_energies)
    if settings.family in FAMILIES_WITH_HEADS:
        energies = energies[None, :]
    constants = {
        "atomic_numbers": np.array(settings.elements),
        "r_max": np.array(settings.backbone.r_max),
        "num_interactions": np.array(settings.backbone.num_interactions),
        "atomic_energies_fn.atomic_energies": energies,
    }
    own = settings.own
    if isinstance(own, ScaleShiftSettings):
        constants["scale_shift.scale"] = np.array(own.scale)
        constants["scale_shift.shift"] = np.array(own.shift)
    if isinstance(own, FormalChargeSettings) and own.formal_charges is not None:
        constants["formal_charges.formal_charges"] = np.array(own.formal_charges)
    if isinstance(own, FixedPointSettings | PolarMACESettings):
        constants["field_feature_norms"] = expanded_norms(
            own.field_feature_norms, settings.density.receivers.max_l
        )
    if isinstance(own, FixedPointSettings):
        constants |= _fixed_point_constants(settings)
    return constants


def _fixed_point_constants(settings: ModelSettings[FixedPointSettings]) -> dict[str, np.ndarray]:
    choices = settings.own
    constants = {"fermi_level_offset": np.array(choices.fermi_level_offset)}
    if choices.update in SCALED_UPDATES:
        constants[f"{UPDATE}.atom_density_scale"] = np.array(choices.atom_density_scaling)
    if choices.linear_local_multipoles:
        for layer in range(settings.backbone.num_interactions):
            name = f"lr_source_maps.{layer}.atom_density_scale"
            constants[name] = np.array(choices.atom_density_scaling)
    return constants
