"""Which options have an effect: those of the backbone and the family of a run, and of all."""

from __future__ import annotations

from typing import Any

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.models import FAMILIES, families_with
from mace_scf_jax.models.electrostatics import ElectrostaticsOptions
from mace_scf_jax.training.config.options import MODEL_TOPICS, TOPICS, TrainOptions


def owners(option: str) -> tuple[str, ...] | None:
    """Return the backbones or families that an option matters to; None for all."""
    topic = next(topic for topic in TOPICS if option in topic.model_fields)
    if topic not in MODEL_TOPICS:
        return None
    if topic is ElectrostaticsOptions:
        return tuple(name for name, family in FAMILIES.items() if family.is_charged)
    backbones = tuple(name for name, it in BACKBONES.items() if it.options is topic)
    return backbones or families_with(topic)


def matters_to(option: str, *, family: str | None, backbone: str | None = None) -> bool:
    """Return whether a family and a backbone know an option; None stands for any."""
    known = owners(option)
    if known is None:
        return True
    if set(known) <= set(BACKBONES):
        return backbone is None or backbone in known
    return family is None or family in known


def ineffective(options: TrainOptions) -> list[str]:
    """A sentence for each option that was changed and changes nothing, because of another one.

    Args:
        options: of a run.
    """
    found = [
        f"Option '{name}' has no effect: it is of {', '.join(owners(name) or ())}, not of "
        f"{options.model}"
        for name in TrainOptions.model_fields
        if not matters_to(name, family=options.model, backbone=options.backbone)
        and getattr(options, name) != _default(name)
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
