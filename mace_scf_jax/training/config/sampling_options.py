"""The training options of sampling; see `option_groups` for the others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.options.values import NoneInText, Number, PositiveWholeNumber
from mace_scf_jax.training.config.option_groups import OptionGroup


class SamplingOptions(OptionGroup):
    """Sampling"""

    sampling_policy: Literal["uniform", "energy_weighted", "error_weighted"] = Field(
        default="uniform",
        description="how often structures are drawn in an epoch: each once; those of low energy "
        "more often; those of large error at the last evaluation more often",
    )
    force_fraction: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="share of the training structures whose forces are trained on"
    )
    force_resample_epochs: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None, description="epochs after which other structures are chosen (default: never)"
    )
    force_min_structures: PositiveWholeNumber = Field(
        default=1, description="smallest number of structures with forces in an epoch"
    )
    force_scale_unbiased: bool = Field(
        default=True,
        description="multiply the weight of the forces that are used so that the expected loss is "
        "that of all forces",
    )

    def problems_with_sampling(self) -> list[str]:
        """Options that would change nothing."""
        if self.force_fraction < 1.0:
            return []
        return [
            f"option {name!r}: needs a 'force_fraction' below 1"
            for name in ("force_resample_epochs", "force_min_structures", "force_scale_unbiased")
            if getattr(self, name) != type(self).model_fields[name].default
        ]

    def changed_sampling(self) -> dict[str, bool | float | int | str]:
        """The options that are not at their defaults, by name: a part of what a run is."""
        return {
            name: getattr(self, name)
            for name, field in SamplingOptions.model_fields.items()
            if getattr(self, name) != field.default
        }
