"""Settings of a model from its configuration in the PyTorch packages MACE and MACE_SCF, and back.

A configuration is plain data: ``model`` (name of the class), ``atomic_numbers``, ``backbone``
(arguments of the MACE constructor), ``options`` (those of the family), and for `FixedPoint`
``fixedpoint_update_config`` and ``field_readout_config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mace_scf_jax.backbones import BackboneSettings
from mace_scf_jax.electrostatics import ElectrostaticsSettings, FieldFeatureSettings
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings
from mace_scf_jax.models.registry import (
    CHARGE_EQUILIBRATION_FAMILIES,
    CHARGED_FAMILIES,
    CHARGES_ONLY_FAMILIES,
    ENERGY_FUNCTIONAL_FAMILIES,
    FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    SPLIT_CHARGE_FAMILIES,
)
from mace_scf_jax.models.settings import ModelSettings

Configuration = dict[str, Any]

TORCH_FAMILIES = tuple(name for name in FAMILIES if name not in ENERGY_FUNCTIONAL_FAMILIES)
"""Families whose models can be exchanged with the PyTorch packages."""

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

_EQUILIBRATION_SWITCHES = ("read_enegs", "read_hardness", "train_hardness")


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
        family, options = configuration["model"], configuration["options"]
        if family not in TORCH_FAMILIES:
            raise TorchConfigurationError(
                f"model: expected one of {', '.join(TORCH_FAMILIES)}, found {family!r}"
            )
        charged = family in CHARGED_FAMILIES
        return ModelSettings(
            family=family,
            backbone=_backbone(configuration, charged=charged),
            atomic_energies=tuple(configuration["backbone"]["atomic_energies"]),
            electrostatics=_electrostatics(family, options) if charged else None,
            scale=options.get("atomic_inter_scale", 1.0),
            shift=options.get("atomic_inter_shift", 0.0),
            formal_charges=options.get("atomic_formal_charges"),
            split_charges=_split_charges(options) if family in SPLIT_CHARGE_FAMILIES else None,
            charge_equilibration=_charge_equilibration(options)
            if family in CHARGE_EQUILIBRATION_FAMILIES
            else None,
            fixed_point=_fixed_point(configuration) if family in SELF_CONSISTENT_FAMILIES else None,
        )
    except KeyError as error:
        raise TorchConfigurationError(f"configuration: found no entry {error}") from error


def _backbone(configuration: Mapping[str, Any], *, charged: bool) -> BackboneSettings:
    options, arguments = configuration["options"], dict(configuration["backbone"])
    arguments.pop("atomic_energies", None)
    unknown = arguments.keys() - set(_BACKBONE_ARGUMENTS)
    if unknown:
        raise TorchConfigurationError(
            f"configuration: found backbone arguments {sorted(unknown)}, which are not known here"
        )
    return BackboneSettings(
        elements=tuple(configuration["atomic_numbers"]),
        pair_repulsion=options.get("pair_repulsion", False) and not charged,
        distance_transform=options.get("distance_transform", "None"),
        # a plain MACE of one layer keeps all degrees in it, though it reads the scalars only
        scalar_last_layer=not charged and arguments["num_interactions"] > 1,
        use_linear_final_readout=options.get("use_linear_final_readout", False),
        **{_BACKBONE_NAMES.get(name, name): value for name, value in arguments.items()},
    )


def _electrostatics(family: str, options: Mapping[str, Any]) -> ElectrostaticsSettings:
    features = None
    if family in SELF_CONSISTENT_FAMILIES:
        features = FieldFeatureSettings(
            max_l=options["field_feature_max_l"],
            widths=tuple(options["field_feature_widths"]),
            include_self_interaction=options["field_si"],
        )
    return ElectrostaticsSettings(
        max_l=0 if family in CHARGES_ONLY_FAMILIES else options["atomic_multipoles_max_l"],
        smearing_width=options["atomic_multipoles_smearing_width"],
        kspace_cutoff_factor=options["kspace_cutoff_factor"],
        boundary=options["pbc_handling"],
        include_self_interaction=options["include_electrostatic_self_interaction"],
        features=features,
        molecule_exponent=REFERENCE_MOLECULE_EXPONENT
        if features is None
        else REFERENCE_FEATURE_EXPONENT,
    )


def _charge_equilibration(options: Mapping[str, Any]) -> ChargeEquilibrationSettings:
    return ChargeEquilibrationSettings(
        default_hardness=options["default_hardness"],
        **{name: options.get(name, False) for name in _EQUILIBRATION_SWITCHES},
    )


def _split_charges(options: Mapping[str, Any]) -> SplitChargeSettings:
    return SplitChargeSettings(
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


def configuration_from_settings(settings: ModelSettings) -> Configuration:
    """The configuration of the PyTorch model that has the same weights and gives the same numbers.

    Args:
        settings: of the model.

    Raises:
        TorchConfigurationError: the PyTorch packages have no such model.
    """
    require_counterpart(settings)
    backbone = settings.backbone
    arguments = {
        name: getattr(backbone, _BACKBONE_NAMES.get(name, name)) for name in _BACKBONE_ARGUMENTS
    }
    arguments["radial_MLP"] = list(backbone.radial_MLP)
    arguments["atomic_energies"] = list(settings.atomic_energies)
    options: dict[str, Any] = {
        "distance_transform": backbone.distance_transform,
        "pair_repulsion": backbone.pair_repulsion,
        "use_linear_final_readout": backbone.use_linear_final_readout,
    }
    if settings.family == "ScaleShiftMACE":
        options |= {"atomic_inter_scale": settings.scale, "atomic_inter_shift": settings.shift}
    if settings.electrostatics is not None:
        options |= _electrostatic_options(settings.electrostatics)
    if settings.formal_charges is not None:
        options["atomic_formal_charges"] = list(settings.formal_charges)
    configuration = {
        "model": settings.family,
        "atomic_numbers": list(settings.elements),
        "backbone": arguments,
        "options": options,
    }
    if settings.split_charges is not None:
        options |= {
            "formal_charges_from_data": settings.formal_charges is None,
            "static_bond_transfer_block": settings.split_charges.transfer_block,
            "oxidation_state_mixer": settings.split_charges.oxidation_state_mixer,
            "oxidation_state_range": list(settings.split_charges.oxidation_state_range),
            "compute_polarizability": settings.split_charges.polarizability,
        }
    if settings.charge_equilibration is not None:
        names = ("default_hardness", *_EQUILIBRATION_SWITCHES)
        options |= {name: getattr(settings.charge_equilibration, name) for name in names}
    if settings.fixed_point is not None:
        configuration |= _fixed_point_parts(settings.fixed_point, options, settings.elements)
    return configuration


def _electrostatic_options(electrostatics: ElectrostaticsSettings) -> dict[str, Any]:
    options = {
        "kspace_cutoff_factor": electrostatics.kspace_cutoff_factor,
        "atomic_multipoles_max_l": electrostatics.max_l,
        "atomic_multipoles_smearing_width": electrostatics.smearing_width,
        "include_electrostatic_self_interaction": electrostatics.include_self_interaction,
        "pbc_handling": electrostatics.boundary.value,
    }
    if electrostatics.features is not None:
        options |= {
            "field_feature_max_l": electrostatics.features.max_l,
            "field_feature_widths": list(electrostatics.features.widths),
            "field_si": electrostatics.features.include_self_interaction,
        }
    return options


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

    Args:
        settings: of the model.

    Raises:
        TorchConfigurationError: saying what they lack.
    """
    if settings.family not in TORCH_FAMILIES:
        raise TorchConfigurationError(
            f"model {settings.family}: the PyTorch packages have no such family; they have "
            f"{', '.join(TORCH_FAMILIES)}"
        )
    charged, backbone = settings.electrostatics is not None, settings.backbone
    scalars_only = not charged and backbone.num_interactions > 1
    expected = 0 if scalars_only else backbone.max_hidden_degree
    found = backbone.layer_max_degree(backbone.num_interactions - 1)
    if found != expected:
        raise TorchConfigurationError(
            f"model {settings.family}: in the PyTorch packages its last layer has the degrees up "
            f"to {expected}, here up to {found}"
        )
    split = settings.split_charges
    if split is not None and split.transfer_range != REFERENCE_OXIDATION_STATE_RANGE:
        raise TorchConfigurationError(
            f"transfer_range: the PyTorch packages expand formal charges in the range "
            f"{REFERENCE_OXIDATION_STATE_RANGE}, this model in {split.transfer_range}"
        )
    if charged and settings.electrostatics.kspace_fade != 0.0:
        raise TorchConfigurationError(
            "kspace_fade: the reciprocal sums of the PyTorch packages have a sharp cutoff, "
            f"expected 0, found {settings.electrostatics.kspace_fade:g}"
        )
