"""Options of training that starts from another model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import NoneInText, PositiveNumber


class StartOptions(OptionGroup):
    """Start model"""

    start_from: Annotated[str | None, NoneInText] = Field(
        default=None,
        description="model file, or name of a public model, whose weights training starts from; "
        "sizes and choices of the network are those of this model and need not be given",
    )
    start_head: Annotated[str | None, NoneInText] = Field(
        default=None, description="head of the start model, if that has several"
    )
    start_elements: Literal["data", "all"] = Field(
        default="data",
        description="elements of the new model: those of the data, or all of the start model",
    )
    start_charge: PositiveNumber = Field(
        default=0.01,
        description="root mean square charge in e that a family with charges begins with, if the "
        "start model is of another family; zero would never change",
    )

    def problems(self) -> list[str]:
        """Return sentences on options that need a start model."""
        if self.start_from is not None:
            return []
        return [
            f"option {name!r}: needs 'start_from', the model to start from"
            for name in ("start_head", "start_elements", "start_charge")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
