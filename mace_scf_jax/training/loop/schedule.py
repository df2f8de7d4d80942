"""The stages of a training run: which epochs, which learning rates, which loss, which mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from mace_scf_jax.options import ConfigurationError, OptionGroup, collecting, read_value
from mace_scf_jax.options.values import (
    FileName,
    Number,
    NumberFromZero,
    WholeNumberFromZero,
    names_in,
)
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.training import losses
from mace_scf_jax.training.loop.fixed_point_training import (
    DEPRECATED_KEY,
    OPTIONS_KEY,
    FixedPointTraining,
    read_fixed_point_training,
)
from mace_scf_jax.training.optimise.options import SchedulerOptions
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups

DEFAULT_LEARNING_RATE: float = SchedulerOptions.model_fields["lr"].default
REQUIRED_KEYS = ("name", "start", "end", "loss")
SHORTHAND = "force_weight"
"""Of a stage: share of the forces in the loss of ænet."""
FREEZE = "freeze"
Share = Annotated[Number, Field(ge=0.0, le=1.0)]


class Stage(OptionGroup):
    """One stage of the training schedule"""

    name: Annotated[FileName, BeforeValidator(str)] = Field(
        description="part of the names of checkpoints and model files"
    )
    start: WholeNumberFromZero = Field(description="first epoch")
    end: WholeNumberFromZero = Field(description="last epoch, included")
    loss: Mapping[str, NumberFromZero] = Field(description="weight of each loss term by its name")
    lr: NumberFromZero = Field(
        default=DEFAULT_LEARNING_RATE, description="learning rate of every parameter group"
    )
    group_lrs: Mapping[str, NumberFromZero] = Field(
        default={}, description="learning rates of single parameter groups, which win over lr"
    )
    freeze: tuple[str, ...] = Field(
        default=(), description="parameter groups that stay as they are"
    )
    loss_options: Mapping[str, SerializeAsAny[OptionGroup]] = Field(
        default={}, description="options of the loss terms that are not at their defaults"
    )
    fixed_point: FixedPointTraining | None = Field(
        default=None, description="how a fixed-point model is trained; None for other models"
    )

    @property
    def reads_derivatives(self) -> bool:
        """Whether the loss reads derivatives of the energy by the geometry."""
        return bool(losses.outputs_read(self.loss) & losses.GEOMETRY_DERIVATIVES)

    def problems(self) -> list[str]:
        """Tell what does not go together."""
        problems = []
        if self.start > self.end:
            problems.append(
                f"epochs {self.start} to {self.end} (both included): expected start <= end"
            )
        if not any(self.loss.values()):
            problems.append("loss: no term has a weight above zero, so nothing would be learned")
        groups = parameter_groups()
        problems += [
            f"freeze: {unknown_name('parameter group', name, groups)}"
            for name in self.freeze
            if name not in groups
        ]
        return problems

    @classmethod
    def read(cls, block: Any, *, default_lr: float = DEFAULT_LEARNING_RATE) -> Stage:
        """Read a stage as it is written in a schedule.

        Args:
            block: a mapping with ``name``, ``start``, ``end``, ``loss``, and optionally ``lr``,
                ``<parameter group>_lr``, ``freeze`` and ``fixed_point_training_options``; in place
                of ``loss`` it may have ``force_weight``.
            default_lr: learning rate of a stage that names none.

        Raises:
            ConfigurationError: lists everything that is wrong with the block.
        """
        if not isinstance(block, Mapping):
            raise ConfigurationError(f"expected a mapping, found {block!r}")
        rates = {_rate_name(group): group for group in parameter_groups()}
        plain = (*REQUIRED_KEYS, "lr", FREEZE)
        known = {*plain, SHORTHAND, OPTIONS_KEY, DEPRECATED_KEY, *rates}
        problems = [unknown_name("key", key, known) for key in block if key not in known]
        values = {"lr": default_lr} | {key: block[key] for key in plain if key in block}
        values["group_lrs"] = {}
        if FREEZE in values:
            values[FREEZE] = names_in(values[FREEZE])
        for key in [key for key in block if key in rates]:
            with collecting(problems, within=key):
                values["group_lrs"][rates[key]] = read_value(NumberFromZero, block[key])
        if "loss" in block or SHORTHAND in block:
            values["loss"], values["loss_options"] = {"unread": 1.0}, {}
            with collecting(problems):
                values["loss"], values["loss_options"] = _read_loss(_terms(block))
        with collecting(problems):
            values["fixed_point"] = read_fixed_point_training(block, loss=values.get("loss", {}))
        with collecting(problems):
            stage = cls(**values)
        if problems:
            raise ConfigurationError(*problems)
        return stage

    @property
    def epochs(self) -> range:
        """The epochs of the stage."""
        return range(self.start, self.end + 1)

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates under the names of the schedule: ``lr``, ``<parameter group>_lr``."""
        return {"lr": self.lr, **{_rate_name(group): r for group, r in self.group_lrs.items()}}

    def with_fixed_point(self, default: Mapping[str, Any]) -> Stage:
        """Return the stage, with a way to train a fixed-point model if it has none.

        Args:
            default: the block as it is written in a schedule.
        """
        if self.fixed_point is not None:
            return self
        return self.model_copy(
            update={
                "fixed_point": read_fixed_point_training({OPTIONS_KEY: default}, loss=self.loss)
            }
        )

    def to_mapping(self) -> dict[str, Any]:
        """Write the stage as in a schedule."""
        fixed_point = {}
        if self.fixed_point is not None:
            fixed_point[OPTIONS_KEY] = self.fixed_point.to_mapping()
        return {
            "name": self.name,
            "start": self.start,
            "end": self.end,
            **self.rates,
            **({FREEZE: list(self.freeze)} if self.freeze else {}),
            **fixed_point,
            "loss": {
                term: {"weight": weight, **self.loss_options[term].model_dump()}
                if term in self.loss_options
                else weight
                for term, weight in self.loss.items()
            },
        }


def read_schedule(schedule: Any, *, default_lr: float = DEFAULT_LEARNING_RATE) -> tuple[Stage, ...]:
    """Read the stages that a ``train_schedule`` block describes.

    Args:
        schedule: mapping from the stage index 0, 1, 2, … (in that order; text in JSON) to a
            stage, as of :meth:`Stage.read`.
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
        with collecting(problems, within=f"train_schedule, stage {index}"):
            stages.append(Stage.read(block, default_lr=default_lr))
    if not problems:
        problems = _problems_between(stages)
    if problems:
        raise ConfigurationError(*problems)
    return tuple(stages)


def shortened(stages: tuple[Stage, ...], epochs: int | None) -> tuple[Stage, ...]:
    """The stages with fewer epochs, in proportion to those that they have; at least one each.

    Args:
        stages: that follow each other without gap.
        epochs: of all stages together; None and more than there are change nothing.

    Raises:
        ConfigurationError: there are fewer epochs than stages.
    """
    if epochs is None:
        return stages
    if epochs < len(stages):
        raise ConfigurationError(
            f"option 'max_num_epochs': found {epochs}, expected at least {len(stages)}, one epoch "
            "for each stage"
        )
    all_epochs, first = stages[-1].end + 1, 0
    if epochs >= all_epochs:
        return stages
    found = []
    for index, stage in enumerate(stages):
        last = round(epochs * (stage.end + 1) / all_epochs) - 1
        last = min(max(last, first), epochs - len(stages) + index)
        found.append(stage.model_copy(update={"start": first, "end": last}))
        first = last + 1
    return tuple(found)


def describe_epochs(stages: tuple[Stage, ...]) -> str:
    """The epochs of all stages for a message.

    Args:
        stages: at least one.
    """
    return ", ".join(f"{stage.name}: epochs {stage.start} to {stage.end}" for stage in stages)


def _terms(block: Mapping[str, Any]) -> Any:
    """The terms of a loss; with ``force_weight: α`` (1 - α) RMSE of energies + α RMSE of forces.

    A term of weight zero is left out, so that nothing is computed for it.
    """
    if SHORTHAND not in block:
        return block["loss"]
    if "loss" in block:
        raise ConfigurationError(f"found both 'loss' and {SHORTHAND!r}, expected one of them")
    try:
        share = read_value(Share, block[SHORTHAND])
    except ConfigurationError as error:
        raise error.within(SHORTHAND) from None
    weights = {"energy_per_atom": 1.0 - share, "forces": share}
    return {name: {"weight": it, "form": "rmse"} for name, it in weights.items() if it > 0.0}


def _read_loss(terms: Any) -> tuple[dict[str, Any], dict[str, OptionGroup]]:
    """Weights and options by name from numbers or mappings with a ``weight`` and options."""
    if not isinstance(terms, Mapping) or not terms:
        raise ConfigurationError(
            f"loss: expected a mapping from loss terms to weights, found {terms!r}"
        )
    weights: dict[str, Any] = {}
    options: dict[str, OptionGroup] = {}
    problems: list[str] = []
    for term, given in terms.items():
        if term not in losses.LOSSES:
            problems.append(unknown_name("loss term", term, losses.LOSSES))
            continue
        values = dict(given) if isinstance(given, Mapping) else {"weight": given}
        with collecting(problems, within=f"loss term {term!r}"):
            if "weight" not in values:
                raise ConfigurationError("'weight' is required")
            weights[term] = read_value(NumberFromZero, values.pop("weight"))
            chosen = losses.loss_options(term, values)
            if chosen is not None and chosen != type(chosen)():
                options[term] = chosen
    if problems:
        raise ConfigurationError(*problems)
    return weights, options


def _rate_name(group: str) -> str:
    """Key of the learning rate of a parameter group in a stage."""
    return f"{group}_lr"


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
