"""How a stage trains a fixed-point model: the block ``fixed_point_training_options``."""

from __future__ import annotations

import dataclasses
import enum
import math
import warnings
from collections.abc import Mapping
from typing import Any

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models import InitialDensity, InitialFermiLevel
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.scf import SOLVERS

OPTIONS_KEY = "fixed_point_training_options"
DEPRECATED_KEY = "scf_training_options"
STABILITY = "fixedpoint_scf_stability"
"""Key of the block, and name of the loss term that it is about."""

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


@dataclasses.dataclass(frozen=True)
class SCFOptions:
    """The block ``scf``: how a self-consistent state is searched for.

    Raises:
        ConfigurationError: a value of a wrong kind or out of range.
    """

    num_scf_steps: int = 100
    """One more than the number of steps after which to give up."""
    mixing_parameter: float = 0.25
    """Fraction α of the way that one step of linear mixing goes, in fallbacks too."""
    scf_tolerance: float = 1e-6
    """Mean change of the multipoles below which a structure has converged."""
    constant_charge: bool = True
    """Solve for the Fermi levels that give the total charges; otherwise Fermi levels are given."""
    use_autograd_forces: bool = True
    """False: at given Fermi levels, unroll_scf differentiates only the last step."""
    initial_density: InitialDensity = InitialDensity.LOCAL_GUESS
    initial_fermi_level: InitialFermiLevel = InitialFermiLevel.FROM_DATA
    solver: str = "auto"
    """A name in `mace_scf_jax.scf.SOLVERS`; linear_mixing in the mode unroll_scf."""

    def __post_init__(self) -> None:
        problems = []
        steps = self.num_scf_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            problems.append(f"num_scf_steps: expected a whole number above 0, found {steps!r}")
        for name, largest in (("mixing_parameter", 1.0), ("scf_tolerance", math.inf)):
            try:
                object.__setattr__(self, name, _number(getattr(self, name)))
                if not 0.0 < getattr(self, name) <= largest:
                    raise ValueError
            except (TypeError, ValueError):
                wanted = "in (0, 1]" if largest == 1.0 else "above 0"
                problems.append(
                    f"{name}: expected a number {wanted}, found {getattr(self, name)!r}"
                )
        for name in ("constant_charge", "use_autograd_forces"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name}: expected true or false, found {getattr(self, name)!r}")
        for name, choices in (
            ("initial_density", InitialDensity),
            ("initial_fermi_level", InitialFermiLevel),
        ):
            try:
                object.__setattr__(self, name, choices(getattr(self, name)))
            except ValueError:
                problems.append(
                    unknown_name(name, str(getattr(self, name)), [c.value for c in choices])
                )
        if self.solver not in SOLVERS:
            problems.append(unknown_name("solver", str(self.solver), SOLVERS))
        if problems:
            raise ConfigurationError(*problems)


SCF_KEYS = tuple(field.name for field in dataclasses.fields(SCFOptions))
EXPLICIT_KEYS = ("num_scf_steps", "mixing_parameter")
"""Keys that have to be given, because no default suits all models."""


@dataclasses.dataclass(frozen=True)
class FixedPointTraining:
    """How a stage trains a fixed-point model."""

    mode: TrainingMode
    scf: SCFOptions | None = None
    """None in the mode ``direct``."""
    linear_solve: str = "inverse"
    fixedpoint_scf_stability: bool = False
    """Whether the outputs that the loss term of this name reads are computed."""

    def to_mapping(self) -> dict[str, Any]:
        """The block as it is written in a schedule."""
        block = {**dataclasses.asdict(self), "mode": self.mode.value}
        if self.scf is None:
            del block["scf"]
        else:
            for name in ("initial_density", "initial_fermi_level"):
                block["scf"][name] = getattr(self.scf, name).value
        return block


def parse_fixed_point_training(
    stage: Mapping[str, Any], *, loss: Mapping[str, Any]
) -> FixedPointTraining | None:
    """The block of a stage; None if it has none.

    Args:
        stage: the stage as it is written in a schedule.
        loss: its loss terms by name.

    Raises:
        ConfigurationError: lists everything that is wrong with the block.
    """
    if OPTIONS_KEY in stage and DEPRECATED_KEY in stage:
        raise ConfigurationError(f"give either {OPTIONS_KEY!r} or {DEPRECATED_KEY!r}, found both")
    try:
        if DEPRECATED_KEY in stage:
            return _parse(_modernised(_mapping(stage[DEPRECATED_KEY])), loss)
        return _parse(_mapping(stage[OPTIONS_KEY]), loss) if OPTIONS_KEY in stage else None
    except ConfigurationError as error:
        key = OPTIONS_KEY if OPTIONS_KEY in stage else DEPRECATED_KEY
        problems = [f"{key}: {problem}" for problem in error.problems]
        raise ConfigurationError(*problems) from None


def _parse(block: Mapping[str, Any], loss: Mapping[str, Any]) -> FixedPointTraining:
    known = ("mode", "scf", "linear_solve", STABILITY)
    problems = [
        f"{key!r} must be nested under 'scf'"
        if key in SCF_KEYS
        else unknown_name("key", key, known)
        for key in block
        if key not in known
    ]
    modes = tuple(TrainingMode)
    if "mode" not in block:
        problems.append(f"'mode' is missing; mode must be one of {', '.join(modes)}")
    elif block["mode"] not in modes:
        problems.append(f"mode must be one of {', '.join(modes)}, found {block['mode']!r}")
    stability = block.get(STABILITY, STABILITY in loss)
    if not isinstance(stability, bool):
        problems.append(f"{STABILITY}: expected true or false, found {stability!r}")
    if problems:
        raise ConfigurationError(*problems)
    mode = TrainingMode(block["mode"])
    linear_solve = block.get("linear_solve", "inverse")
    allowed = LINEAR_SOLVES.get(mode.value, (linear_solve,))
    if linear_solve not in allowed:
        raise ConfigurationError(
            f"linear_solve: expected {' or '.join(allowed)} in the mode {mode}, "
            f"found {linear_solve!r}"
        )
    return FixedPointTraining(mode, _parse_scf(mode, block.get("scf")), linear_solve, stability)


def _parse_scf(mode: TrainingMode, scf: Any) -> SCFOptions | None:
    if mode is TrainingMode.DIRECT:
        if scf is not None:
            raise ConfigurationError(
                "the mode direct has no self-consistency: 'scf' must be absent"
            )
        return None
    if scf is None:
        raise ConfigurationError(f"'scf' is missing, which the mode {mode} needs")
    if not isinstance(scf, Mapping):
        raise ConfigurationError(f"scf: expected a mapping, found {scf!r}")
    problems = [unknown_name("key", key, SCF_KEYS) for key in scf if key not in SCF_KEYS]
    problems += [f"must explicitly set {key!r}" for key in EXPLICIT_KEYS if key not in scf]
    unrolled = mode is TrainingMode.UNROLL_SCF
    if unrolled and scf.get("solver", "linear_mixing") != "linear_mixing":
        problems.append(
            f"solver: the mode unroll_scf always mixes linearly (linear_mixing), "
            f"found {scf['solver']!r}"
        )
    options = None
    try:
        given = {key: value for key, value in scf.items() if key in SCF_KEYS}
        options = SCFOptions(**({"solver": "linear_mixing"} if unrolled else {}) | given)
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(*(f"scf: {problem}" for problem in problems))
    return options


def _modernised(block: Mapping[str, Any]) -> dict[str, Any]:
    """The deprecated block in the present form: the keys of ``scf`` were not nested."""
    warnings.warn(
        f"{DEPRECATED_KEY!r} is deprecated; use {OPTIONS_KEY!r} with the keys of the solver "
        "nested under 'scf'",
        DeprecationWarning,
        stacklevel=2,
    )
    flat = {key: value for key, value in block.items() if key in SCF_KEYS}
    rest = {key: value for key, value in block.items() if key not in SCF_KEYS}
    if flat and rest.get("scf") is not None:
        raise ConfigurationError(
            "found keys of 'scf' both nested and not nested: " + ", ".join(sorted(flat))
        )
    if rest.get("mode") == TrainingMode.DIRECT:
        return {key: value for key, value in rest.items() if key != "scf"}
    return {**rest, "scf": flat} if flat else rest


def _mapping(block: Any) -> Mapping[str, Any]:
    if not isinstance(block, Mapping):
        raise ConfigurationError(f"expected a mapping, found {block!r}")
    return block


def _number(value: Any) -> float:
    """A finite number; text is taken too, because YAML 1.1 reads ``1e-6`` as text."""
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)
