"""How a stage trains a fixed-point model: the block ``fixed_point_training_options``."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, model_validator

from mace_scf_jax.models.families.fixed_point.choices import (
    InitialDensity,
    InitialFermiLevel,
)
from mace_scf_jax.options import ConfigurationError, OneOf, OptionGroup
from mace_scf_jax.options.values import Number, PositiveNumber, TextKeys
from mace_scf_jax.scf.known import SOLVERS

OPTIONS_KEY = "fixed_point_training_options"
DEPRECATED_KEY = "scf_training_options"
STABILITY = "fixedpoint_scf_stability"
"""Key of the block, and name of the loss term that it is about."""

DEFAULT_TRAINING: dict[str, Any] = {
    "mode": "implicit",
    "scf": {"num_scf_steps": 50, "mixing_parameter": 0.25},
}
"""The block of a stage that has none: it needs no labels but those of its loss."""

LINEAR_SOLVES = {"implicit": ("inverse", "normal_cg"), "linearize_solve": ("inverse",)}
"""Values of ``linear_solve`` in the modes that have any. All mean the linear solves of `solver`."""


class TrainingMode(enum.StrEnum):
    """What a stage trains on."""

    DIRECT = "direct"
    """One step from the reference multipoles and Fermi levels."""
    UNROLL_SCF = "unroll_scf"
    """The state after a number of mixing steps, differentiated through all of them."""
    IMPLICIT = "implicit"
    """The solved state, differentiated by the implicit-function theorem."""
    LINEARIZE_SOLVE = "linearize_solve"
    """The solved state, differentiated through Newton steps at the solution."""


class SCFOptions(OptionGroup):
    """How a self-consistent state is searched for (the block ``scf``)"""

    num_scf_steps: Annotated[int, Field(strict=True, ge=1)] = Field(
        description="one more than the number of steps after which to give up"
    )
    mixing_parameter: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        description="fraction α of the way that one step of linear mixing goes, in fallbacks too"
    )
    scf_tolerance: PositiveNumber = Field(
        default=1e-6,
        description="mean change of the multipoles below which a structure has converged",
    )
    constant_charge: StrictBool = Field(
        default=True,
        description="solve for the Fermi levels that give the total charges; otherwise Fermi "
        "levels are given",
    )
    use_autograd_forces: StrictBool = Field(
        default=True,
        description="false: at given Fermi levels, unroll_scf differentiates only the last step",
    )
    initial_density: InitialDensity = InitialDensity.LOCAL_GUESS
    initial_fermi_level: InitialFermiLevel = InitialFermiLevel.FROM_DATA
    solver: Annotated[str, OneOf(SOLVERS)] = Field(
        default="auto", description="the mode unroll_scf always mixes linearly"
    )


class FixedPointTraining(OptionGroup):
    """How a stage trains a fixed-point model"""

    mode: TrainingMode
    scf: Annotated[SCFOptions | None, TextKeys] = Field(
        default=None, description="None in the mode direct"
    )
    linear_solve: str = "inverse"
    fixedpoint_scf_stability: StrictBool = Field(
        default=False,
        description="whether the outputs that the loss term of this name reads are computed",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, block: dict[str, Any]) -> dict[str, Any]:
        """Refuse keys of ``scf`` outside of it; unroll_scf mixes linearly if nothing is said."""
        outside = [key for key in block if key in SCFOptions.model_fields]
        problems = [f"{key!r} must be nested under 'scf'" for key in outside]
        if "mode" not in block:
            problems.append(f"'mode' is required, one of {', '.join(TrainingMode)}")
        if problems:
            raise ConfigurationError(*problems)
        scf = block.get("scf")
        if block["mode"] == TrainingMode.UNROLL_SCF and isinstance(scf, Mapping):
            block = {**block, "scf": {"solver": "linear_mixing", **scf}}
        return block

    def problems(self) -> list[str]:
        """Tell what does not go together."""
        is_direct = self.mode is TrainingMode.DIRECT
        if is_direct and self.scf is not None:
            return ["the mode direct has no self-consistency: 'scf' must be absent"]
        if not is_direct and self.scf is None:
            return [f"'scf' is required by the mode {self.mode}"]
        problems = []
        if self.mode is TrainingMode.UNROLL_SCF and self.scf.solver != "linear_mixing":
            problems.append(
                "scf: solver: the mode unroll_scf always mixes linearly (linear_mixing), "
                f"found {self.scf.solver!r}"
            )
        allowed = LINEAR_SOLVES.get(self.mode, (self.linear_solve,))
        if self.linear_solve not in allowed:
            problems.append(
                f"linear_solve: expected {' or '.join(allowed)} in the mode {self.mode}, "
                f"found {self.linear_solve!r}"
            )
        return problems

    def to_mapping(self) -> dict[str, Any]:
        """Write the block as in a schedule."""
        return self.model_dump(mode="json", exclude={"scf"} if self.scf is None else None)


def read_fixed_point_training(
    stage: Mapping[str, Any], *, loss: Mapping[str, Any]
) -> FixedPointTraining | None:
    """Read the block of a stage; None if it has none.

    Args:
        stage: the stage as it is written in a schedule.
        loss: its loss terms by name.

    Raises:
        ConfigurationError: lists everything that is wrong with the block.
    """
    keys = [key for key in (OPTIONS_KEY, DEPRECATED_KEY) if key in stage]
    if not keys:
        return None
    if len(keys) > 1:
        raise ConfigurationError(f"give either {OPTIONS_KEY!r} or {DEPRECATED_KEY!r}, found both")
    (key,) = keys
    try:
        if not isinstance(stage[key], Mapping):
            raise ConfigurationError(f"expected a mapping, found {stage[key]!r}")
        block = {str(name): value for name, value in stage[key].items()}
        if key == DEPRECATED_KEY:
            block = _modernised(block)
        return FixedPointTraining(**{STABILITY: STABILITY in loss, **block})
    except ConfigurationError as error:
        raise error.within(key) from None


def _modernised(block: Mapping[str, Any]) -> dict[str, Any]:
    """The deprecated block in the present form: the keys of ``scf`` were not nested."""
    warnings.warn(
        f"{DEPRECATED_KEY!r} is deprecated; use {OPTIONS_KEY!r} with the keys of the solver "
        "nested under 'scf'",
        DeprecationWarning,
        stacklevel=2,
    )
    flat = {key: value for key, value in block.items() if key in SCFOptions.model_fields}
    rest = {key: value for key, value in block.items() if key not in SCFOptions.model_fields}
    if flat and rest.get("scf") is not None:
        raise ConfigurationError(
            "found keys of 'scf' both nested and not nested: " + ", ".join(sorted(flat))
        )
    if rest.get("mode") == TrainingMode.DIRECT:
        return {key: value for key, value in rest.items() if key != "scf"}
    return {**rest, "scf": flat} if flat else rest
