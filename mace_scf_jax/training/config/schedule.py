"""The stages of a training run: which epochs, which learning rates, which loss, which mode."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.fixed_point_training import (
    DEPRECATED_KEY,
    OPTIONS_KEY,
    FixedPointTraining,
    parse_fixed_point_training,
)
from mace_scf_jax.training.losses.registry import LOSSES, LossError, loss_options
from mace_scf_jax.training.optimise.parameter_groups import PARAMETER_GROUPS

DEFAULT_LEARNING_RATE = 0.01
REQUIRED_KEYS = ("name", "start", "end", "loss")
GROUP_LEARNING_RATE = "_lr"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the training schedule.

    Attributes:
        name: part of the names of checkpoints and model files.
        start: first epoch.
        end: last epoch, included.
        loss: weight of each loss term by its name.
        lr: learning rate of every parameter group.
        group_lrs: learning rates of single parameter groups, which win over ``lr``.
        loss_options: options of the loss terms that have any, see ``losses.loss_options``.
        fixed_point: how a fixed-point model is trained; None for other models.
    """

    name: str
    start: int
    end: int
    loss: Mapping[str, float]
    lr: float = DEFAULT_LEARNING_RATE
    group_lrs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    loss_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed_point: FixedPointTraining | None = None

    def __post_init__(self):
        problems = []
        if not FILE_NAME.fullmatch(self.name):
            problems.append(
                f"name {self.name!r} becomes part of file names: use letters, digits and . _ + -"
            )
        if not 0 <= self.start <= self.end:
            problems.append(
                f"epochs {self.start} to {self.end} (both included): expected 0 <= start <= end"
            )
        rates = {
            "lr": self.lr,
            **{f"{k}{GROUP_LEARNING_RATE}": v for k, v in self.group_lrs.items()},
        }
        problems += [
            f"{key} must be a finite number >= 0, found {rate}"
            for key, rate in rates.items()
            if not (math.isfinite(rate) and rate >= 0.0)
        ]
        problems += [
            f"loss term {term!r}: the weight must be a finite number >= 0, found {weight}"
            for term, weight in self.loss.items()
            if not (math.isfinite(weight) and weight >= 0.0)
        ]
        if all(weight == 0.0 for weight in self.loss.values()):
            problems.append("loss: no term has a weight above zero, so nothing would be learned")
        if problems:
            raise ConfigurationError(*problems)

    @property
    def epochs(self) -> range:
        """The epochs of the stage."""
        return range(self.start, self.end + 1)

    def to_mapping(self) -> dict[str, Any]:
        """The stage as it is written in a schedule."""
        rates = {f"{group}{GROUP_LEARNING_RATE}": rate for group, rate in self.group_lrs.items()}
        fixed_point = {}
        if self.fixed_point is not None:
            fixed_point[OPTIONS_KEY] = self.fixed_point.to_mapping()
        return {
            "name": self.name,
            "start": self.start,
            "end": self.end,
            "lr": self.lr,
            **rates,
            **fixed_point,
            "loss": {
                term: {"weight": weight, **dataclasses.asdict(self.loss_options[term])}
                if term in self.loss_options
                else weight
                for term, weight in self.loss.items()
            },
        }


def parse_schedule(
    schedule: Any, *, default_lr: float = DEFAULT_LEARNING_RATE
) -> tuple[Stage, ...]:
    """The stages that a ``train_schedule`` block describes.

    Args:
        schedule: mapping from the stage index 0, 1, 2, … (in that order; text in JSON) to a
            mapping with ``name``, ``start``, ``end`` (inclusive), ``loss``, and optionally ``lr``,
            ``<parameter group>_lr`` and ``fixed_point_training_options``.
        default_lr: learning rate of stages that name none.

    Returns:
        The stages, which cover the epochs from 0 on without gap or overlap.

    Raises:
        ConfigurationError: lists everything that is wrong with the block.
    """
    if not isinstance(schedule, Mapping) or not schedule:
        raise ConfigurationError(
            f"train_schedule: expected a mapping of stages 0, 1, 2, …, found {schedule!r}"
        )
    if list(map(str, schedule)) != list(map(str, range(len(schedule)))):
        raise ConfigurationError(
            "train_schedule: the stages must be numbered 0, 1, 2, … in this order, found "
            + ", ".join(map(repr, schedule))
        )
    problems: list[str] = []
    stages: list[Stage] = []
    for index, block in schedule.items():
        try:
            stages.append(_parse_stage(block, default_lr))
        except ConfigurationError as error:
            problems += [f"train_schedule, stage {index}: {problem}" for problem in error.problems]
    if not problems:
        problems = _problems_between(stages)
    if problems:
        raise ConfigurationError(*problems)
    return tuple(stages)


def _parse_stage(block: Any, default_lr: float) -> Stage:
    if not isinstance(block, Mapping):
        raise ConfigurationError(f"expected a mapping, found {block!r}")
    group_keys = {f"{group}{GROUP_LEARNING_RATE}": group for group in PARAMETER_GROUPS}
    known = {*REQUIRED_KEYS, "lr", OPTIONS_KEY, DEPRECATED_KEY, *group_keys}
    problems = [f"{key!r} is missing" for key in REQUIRED_KEYS if key not in block]
    problems += [unknown_name("key", key, known) for key in block if key not in known]
    values: dict[str, Any] = {"lr": default_lr, "group_lrs": {}}
    for key in block:
        try:
            if key == "name":
                values["name"] = str(block["name"])
            elif key in ("start", "end"):
                values[key] = _epoch(key, block[key])
            elif key == "lr":
                values["lr"] = _number(key, block[key])
            elif key == "loss":
                values["loss"], values["loss_options"] = _parse_loss(block[key])
            elif key in group_keys:
                values["group_lrs"][group_keys[key]] = _number(key, block[key])
        except ConfigurationError as error:
            problems += error.problems
    try:
        values["fixed_point"] = parse_fixed_point_training(block, loss=values.get("loss", {}))
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return Stage(**values)


def _parse_loss(terms: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights and options by name from numbers or mappings with a ``weight`` and options."""
    if not isinstance(terms, Mapping) or not terms:
        raise ConfigurationError(
            f"loss: expected a mapping from loss terms to weights, found {terms!r}"
        )
    weights: dict[str, float] = {}
    options: dict[str, Any] = {}
    problems: list[str] = []
    for term, value in terms.items():
        if term not in LOSSES:
            problems.append(unknown_name("loss term", term, LOSSES))
            continue
        given: dict[str, Any] = {}
        if isinstance(value, Mapping):
            if "weight" not in value:
                problems.append(f"loss term {term!r}: 'weight' is missing")
                continue
            given = {key: option for key, option in value.items() if key != "weight"}
            value = value["weight"]
        try:
            weights[term] = _number(f"loss term {term!r}", value)
            chosen = loss_options(term, given)
            if chosen is not None:
                options[term] = chosen
        except ConfigurationError as error:
            problems += error.problems
        except LossError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError(*problems)
    return weights, options


def _number(key: str, value: Any) -> float:
    """A real number; text is taken too, because YAML 1.1 reads ``1e-3`` as text."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{key}: expected a number, found {value!r}") from None


def _epoch(key: str, value: Any) -> int:
    number = _number(key, value)
    if not number.is_integer():
        raise ConfigurationError(f"{key}: expected a whole number of epochs, found {value!r}")
    return int(number)


def _problems_between(stages: list[Stage]) -> list[str]:
    """Gaps, overlaps and repeated names."""
    problems = []
    if stages[0].start != 0:
        problems.append(f"train_schedule, stage 0: start must be 0, found {stages[0].start}")
    for index in range(1, len(stages)):
        before, stage = stages[index - 1], stages[index]
        if stage.start != before.end + 1:
            how = "overlap" if stage.start <= before.end else "leave a gap"
            problems.append(
                f"train_schedule, stages {index - 1} and {index} {how}: stage {index} must start "
                f"at epoch {before.end + 1} (the previous stage ends with epoch {before.end}, "
                f"included), found {stage.start}"
            )
    names = [stage.name for stage in stages]
    problems += [
        f"train_schedule: the name {name!r} is used {names.count(name)} times; stage names must "
        "be different, because files are named after them"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    return problems
