"""Options of families whose multipoles answer the potential: field features, what they weigh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.options.group import DecidesWeights, OptionGroup
from mace_scf_jax.options.values import (
    Literally,
    NoneInText,
    NumberFromZero,
    PositiveNumber,
    WholeNumberFromZero,
    not_yet,
)

AVERAGE = "average"
"""Value of options whose numbers are measured on the training set."""
AUTO: Literal["auto"] = "auto"
"""Value of options that are measured where the training set has the labels for it."""


def _norms(value: Any) -> Any:
    """``auto``, ``average``, None, or numbers by degree and width."""
    if value in (None, AUTO, AVERAGE):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected auto, average, None or a list of numbers, found {value!r}")
    return positive_numbers(dict(enumerate(value)), value).values()


def positive_numbers(values: Mapping[Any, Any], found: Any) -> dict[Any, float]:
    """Numbers by key.

    Raises:
        ValueError: some are no positive numbers, or there are none.
    """
    try:
        numbers = {key: float(value) for key, value in values.items()}
    except (TypeError, ValueError):
        numbers = {}
    if not numbers or not all(number > 0.0 for number in numbers.values()):
        raise ValueError(f"expected numbers above 0, found {found!r}")
    return numbers


class FieldFeatureOptions(OptionGroup):
    """Field features (FixedPoint, PolarMACE)"""

    decide_weights = False

    field_feature_max_l: Annotated[WholeNumberFromZero, Field(le=MAX_L)] = Field(
        default=1, description="highest order of the field features, the potential around an atom"
    )
    field_feature_widths: Annotated[tuple[PositiveNumber, ...], Field(min_length=1), Literally] = (
        Field(default=(1.0, 2.0), description="Gaussian widths of the field features, in Å")
    )
    field_feature_norms: Annotated[
        tuple[float, ...] | Literal["auto", "average"] | None,
        BeforeValidator(_norms),
        Literally,
        NoneInText,
    ] = Field(
        default=AUTO,
        description="what field features are divided by: a number for each order and width, widths "
        "fastest; average: the root mean square over the reference multipoles; None: 1; auto: "
        "average where the training set has multipoles (FixedPoint: and Fermi levels), else 1",
    )
    include_field_si: bool = Field(
        default=False, description="include the potential of an atom's own density in its features"
    )
    quadrupole_feature_corrections: Annotated[bool, not_yet(True)] = Field(
        default=False, description="must stay false"
    )
    include_local_electron_energy: bool = Field(
        default=True, description="add the energy that is read from multipoles and potential"
    )
    fixedpoint_initial_charge_head_scale: Annotated[PositiveNumber, DecidesWeights(True)] = Field(
        default=0.01,
        description="multiplies the initial weights of the last layers that give local multipoles "
        "and their change; 1: off",
    )
    field_block_weight_decay: Annotated[NumberFromZero, DecidesWeights(True)] = Field(
        default=5e-7, description="decay of the weights of the update of the multipoles"
    )
    local_charges_weight_decay: Annotated[NumberFromZero, DecidesWeights(True)] = Field(
        default=5e-7, description="decay of the weights of the readouts of local multipoles"
    )
