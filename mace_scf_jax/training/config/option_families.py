"""Which options have an effect: the families that each matters to, and what else it depends on.

Options that are not named here matter to all families.
"""

from __future__ import annotations

import typing
from typing import Any

from mace_scf_jax.models import (
    CHARGE_EQUILIBRATION_FAMILIES,
    CHARGED_FAMILIES,
    ENERGY_FUNCTIONAL_FAMILIES,
    FORMAL_CHARGE_FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    SPLIT_CHARGE_FAMILIES,
)
from mace_scf_jax.training.config.options import TOPICS, TrainOptions

FAMILIES_OF_TOPIC: dict[str, tuple[str, ...]] = {
    "ElectrostaticsOptions": tuple(CHARGED_FAMILIES),
    "FormalChargeOptions": tuple(FORMAL_CHARGE_FAMILIES),
    "ChargeEquilibrationOptions": tuple(CHARGE_EQUILIBRATION_FAMILIES),
    "FixedPointOptions": tuple(SELF_CONSISTENT_FAMILIES),
}
FAMILIES_OF_OPTION: dict[str, tuple[str, ...]] = {
    "scaling": ("ScaleShiftMACE",),
    "static_bond_transfer_block": tuple(SPLIT_CHARGE_FAMILIES),
    "oxidation_state_mixer": tuple(SPLIT_CHARGE_FAMILIES),
    "oxidation_state_range": tuple(SPLIT_CHARGE_FAMILIES),
    "compute_polarizability": tuple(SPLIT_CHARGE_FAMILIES),
    "default_hardness": (*CHARGE_EQUILIBRATION_FAMILIES, *ENERGY_FUNCTIONAL_FAMILIES),
}
"""Exceptions to their topic."""


def families() -> tuple[str, ...]:
    """The families that can be trained, by name."""
    return typing.get_args(TrainOptions.model_fields["model"].annotation)


def families_of(option: str) -> tuple[str, ...] | None:
    """The families that an option matters to; None for all.

    Args:
        option: its name.
    """
    topic = next(topic for topic in TOPICS if option in topic.model_fields)
    return FAMILIES_OF_OPTION.get(option, FAMILIES_OF_TOPIC.get(topic.__name__))


def matters_to(option: str, family: str | None) -> bool:
    """Whether a family knows an option.

    Args:
        option: its name.
        family: its name; None for any.
    """
    known = families_of(option)
    return family is None or known is None or family in known


def ineffective(options: TrainOptions) -> list[str]:
    """A sentence for each option that was changed and changes nothing, because of another one.

    Args:
        options: of a run.
    """
    found = [
        f"Option '{name}' has no effect: it is of {', '.join(families_of(name) or ())}, not of "
        f"{options.model}"
        for name in TrainOptions.model_fields
        if not matters_to(name, options.model) and getattr(options, name) != _default(name)
    ]
    if options.valid_file is not None and options.valid_fraction != _default("valid_fraction"):
        found.append("Option 'valid_fraction' has no effect: a valid_file is given")
    if options.wandb_watch != "off" and not options.wandb:
        found.append("Option 'wandb_watch' has no effect: it needs wandb: true")
    if options.num_channels is not None and options.hidden_irreps is not None:
        found.append("Option 'hidden_irreps' has no effect: num_channels and max_L are given")
    if options.skip_scf_convergence_summary and (
        "scf_convergence_summary" in options.model_fields_set and options.scf_convergence_summary
    ):
        found.append(
            "Option 'scf_convergence_summary' has no effect: skip_scf_convergence_summary is true"
        )
    return found


def _default(option: str) -> Any:
    return TrainOptions.model_fields[option].default
