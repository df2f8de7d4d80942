"""Options of training that starts from another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field

from mace_scf_jax.options import OptionGroup, block
from mace_scf_jax.options.values import (
    FilePath,
    Literally,
    NoneInText,
    PositiveNumber,
    PositiveWholeNumber,
    names_in,
)
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups


def _names(value: Any) -> Any:
    return value if value is None else names_in(value)


class LowRankOptions(OptionGroup):
    """Low-rank updates of the matrices of the start model"""

    rank: PositiveWholeNumber = Field(default=4, description="rank of the updates")
    alpha: PositiveNumber = Field(default=1.0, description="updates are multiplied by alpha / rank")
    groups: Annotated[tuple[str, ...] | None, BeforeValidator(_names), NoneInText] = Field(
        default=None, description="parameter groups whose matrices are updated; None: all"
    )

    def problems(self) -> list[str]:
        """Tell of groups that there are not."""
        known = parameter_groups()
        return [
            f"groups: {unknown_name('parameter group', name, known)}"
            for name in self.groups or ()
            if name not in known
        ]


class ReplayOptions(OptionGroup):
    """Structures on which the start model is to stay as it is"""

    file: FilePath = Field(description="file, or pattern of files, of the structures")
    keys: dict[str, str | None] | None = Field(
        default=None,
        description="{property: key in the file, …}; None: the keys of the first head",
    )
    samples: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None, description="number of structures, drawn by the seed of the split; None: all"
    )
    weight: PositiveNumber = Field(default=1.0, description="factor on their losses")
    labels: Literal["file", "start"] = Field(
        default="file", description="labels of the file, or those that the start model predicts"
    )


def _elements_like(value: Any) -> dict[int, int]:
    """Atomic number → atomic number; symbols are numbers too, and None is none."""
    if not isinstance(value, Mapping | None):
        raise ValueError(f"expected {{element: element}}, found {value!r}")
    numbers = {}
    for new, old in (value or {}).items():
        pair = [int(atomic_numbers.get(it, it)) for it in (new, old) if f"{it}" in _ELEMENTS]
        if len(pair) != 2:
            raise ValueError(f"expected two elements such as F: Cl, found {new!r}: {old!r}")
        numbers[pair[0]] = pair[1]
    return numbers


_ELEMENTS = {text for symbol, z in atomic_numbers.items() if z for text in (symbol, str(z))}
"""What stands for an element: symbols and atomic numbers."""


def _switched(value: Any) -> Any:
    """Truth values, as MACE has them: updates with the defaults, or none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


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
    new_elements: Annotated[dict[int, int], BeforeValidator(_elements_like), Literally] = Field(
        default={},
        description="{element: element of the start model, …}: elements that the start model does "
        "not know, and those as which they begin",
    )
    start_charge: PositiveNumber = Field(
        default=0.01,
        description="root mean square charge in e that a family with charges begins with, if the "
        "start model is of another family; zero would never change",
    )
    lora: Annotated[
        LowRankOptions | None,
        block("lora", LowRankOptions),
        BeforeValidator(_switched),
        Literally,
        NoneInText,
    ] = Field(
        default=None,
        description="{rank: 4, alpha: 1.0, groups: [parameter group, …]}: train low-rank updates "
        "of the matrices of the start model, and what is new, alone; saved models hold the sums",
    )
    replay: Annotated[
        ReplayOptions | None, block("replay", ReplayOptions), Literally, NoneInText
    ] = Field(
        default=None,
        description="{file, keys: {property: key}, samples, weight: 1.0, labels: file or start}: "
        "structures on which the start model is to stay as it is; a head of their own, 'replay'",
    )

    def problems(self) -> list[str]:
        """Return sentences on options that need a start model."""
        if self.start_from is not None:
            return []
        fields = StartOptions.model_fields
        return [
            f"option {name!r}: needs 'start_from', the model to start from"
            for name in (
                "start_head",
                "start_elements",
                "new_elements",
                "start_charge",
                "lora",
                "replay",
            )
            if getattr(self, name) != fields[name].default
        ]
