"""All options of a training run as one typed, validated, immutable object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import SUFFIXES
from mace_scf_jax.data.stored_set import is_stored
from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models import FAMILIES, Family
from mace_scf_jax.models.electrostatics import ElectrostaticsOptions
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.error import ConfigurationError, problems_of
from mace_scf_jax.options.values import parse_literal
from mace_scf_jax.predict.error_tables import ERROR_TABLES
from mace_scf_jax.training.config.config_file import read_config_file
from mace_scf_jax.training.config.fixed_point_training import OPTIONS_KEY
from mace_scf_jax.training.config.option_groups import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
)
from mace_scf_jax.training.config.option_names import NO_EFFECT, canonical_name, problem_with_name
from mace_scf_jax.training.config.sampling_options import SamplingOptions
from mace_scf_jax.training.config.schedule import DEFAULT_LEARNING_RATE, Stage, parse_schedule
from mace_scf_jax.training.config.tracking_options import TrackingOptions


class ScheduleOptions(OptionGroup):
    """Schedule and report"""

    error_table: str = Field(
        description="errors shown during and after training: " + ", ".join(ERROR_TABLES)
    )
    train_schedule: tuple[Stage, ...] = Field(
        description="stages {0: {name, start, end, loss: {term: weight, …}, lr, "
        "<parameter group>_lr, fixed_point_training_options}, 1: …}, with first and last epoch "
        "(both included)"
    )

    @field_validator("error_table")
    @classmethod
    def _known_table(cls, name: str) -> str:
        if name not in ERROR_TABLES:
            raise ConfigurationError(unknown_name("error table", name, ERROR_TABLES))
        return name

    @field_serializer("train_schedule")
    def _as_mapping(self, stages: tuple[Stage, ...]) -> dict[int, dict[str, Any]]:
        """The form of a configuration file."""
        return {index: stage.to_mapping() for index, stage in enumerate(stages)}

    @field_validator("train_schedule", mode="plain")
    @classmethod
    def _parsed_schedule(cls, schedule: Any, info: Any) -> tuple[Stage, ...]:
        if isinstance(schedule, tuple) and all(isinstance(stage, Stage) for stage in schedule):
            return schedule
        if isinstance(schedule, str):
            schedule = parse_literal(schedule)
        return parse_schedule(schedule, default_lr=info.data.get("lr", DEFAULT_LEARNING_RATE))


MODEL_TOPICS: tuple[type[OptionGroup], ...] = (
    *(backbone.options for backbone in BACKBONES.values()),
    ElectrostaticsOptions,
    *dict.fromkeys(group for family in FAMILIES.values() for group in family.options),
)
"""Options that matter to some backbones or families only."""


class TrainOptions(
    TrackingOptions,
    ScheduleOptions,
    OptimizerOptions,
    SamplingOptions,
    *reversed(MODEL_TOPICS),
    ModelOptions,
    DataOptions,
    RunOptions,
):
    """Options of a training run, under the names of the PyTorch reference.

    Args:
        **values: option values; names may be spelled with ``-`` or ``_``.

    Raises:
        ConfigurationError: lists every unknown name, missing option and wrong value.
    """

    _without_effect: tuple[str, ...] = PrivateAttr(default=())

    def __init__(self, **values: Any):
        values, without_effect, problems = _with_known_names(values, type(self).model_fields)
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += [text for detail in error.errors() for text in _describe(detail)]
        if problems:
            raise ConfigurationError(*problems) from None
        self._without_effect = tuple(without_effect)

    @model_validator(mode="after")
    def _agree(self) -> TrainOptions:
        problems = []
        try:
            KeySpecification.from_heads(self.heads)
        except DataError as error:
            problems.append(str(error))
        if not self.compute_forces:
            problems.append("option 'compute_forces': must be true, found false")
        problems += BACKBONES[self.backbone].options.problems(self)
        problems += [
            f"model {self.model}: {problem}"
            for group in self.family.options
            for problem in group.problems(self)
        ]
        if self.optimizer == "schedulefree" and self.beta == 0.0:
            problems.append("option 'beta': must be above 0 for the schedulefree optimizer")
        if self.log_on_test_sets and self.test_file is None:
            problems.append("option 'log_on_test_sets': needs a 'test_file'")
        for name in ("train_file", "valid_file", "test_file"):
            path = getattr(self, name)
            if path is not None and path.suffix not in SUFFIXES and not is_stored(path):
                problems.append(
                    f"option {name!r}: expected an .xyz file or preprocessed data (a folder or an "
                    f".h5 file), found '{path}'"
                )
        problems += [
            f"wandb_log_hypers: {unknown_name('option', name, type(self).model_fields)}"
            for name in self.wandb_log_hypers or ()
            if name not in type(self).model_fields
        ]
        problems += [
            f"train_schedule, stage {index} ({stage.name}): the loss term 'stress' needs "
            "compute_stress: true"
            for index, stage in enumerate(self.train_schedule)
            if "stress" in stage.loss and not self.compute_stress
        ]
        problems += self._problems_with_modes()
        problems += self.problems_with_sampling()
        if problems:
            raise ConfigurationError(*problems)
        return self

    def _problems_with_modes(self) -> list[str]:
        """Stages that do not say how they train a fixed-point model, or do so for another model."""
        wanted = self.family.is_self_consistent
        owners = " or ".join(name for name in FAMILIES if FAMILIES[name].is_self_consistent)
        found = f"must be absent, because it belongs to the model {owners}"
        if wanted:
            found = f"is required by the model {self.model}"
        return [
            f"train_schedule, stage {index} ({stage.name}): {OPTIONS_KEY!r} {found}"
            for index, stage in enumerate(self.train_schedule)
            if (stage.fixed_point is not None) != wanted
        ]

    @property
    def keys(self) -> KeySpecification:
        """Which key of the data files holds which property."""
        return KeySpecification.from_heads(self.heads)

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Options that were given and accepted, and that change nothing."""
        return self._without_effect

    @property
    def tag(self) -> str:
        """Name of the run in file names: ``<name>_run-<seed>``."""
        return f"{self.name}_run-{self.seed}"

    @property
    def split_seed(self) -> int:
        """Seed of the random validation set."""
        return self.seed if self.valid_set_seed is None else self.valid_set_seed

    @property
    def summarises_convergence(self) -> bool:
        """Whether the run ends with a summary of the convergence of linear mixing."""
        wanted = self.scf_convergence_summary and not self.skip_scf_convergence_summary
        return wanted and self.family.is_self_consistent

    @property
    def family(self) -> Family:
        """The family of the model."""
        return FAMILIES[self.model]


def options_from(config: TrainOptions | Mapping[str, Any] | str | Path) -> TrainOptions:
    """The options that a configuration gives.

    Args:
        config: the options themselves, values by name, or the path of a YAML file.

    Raises:
        ConfigurationError: the file cannot be read, or options are unknown, missing or wrong.
    """
    if isinstance(config, TrainOptions):
        return config
    return TrainOptions(**(config if isinstance(config, Mapping) else read_config_file(config)))


TOPICS: tuple[type[OptionGroup], ...] = (
    RunOptions,
    DataOptions,
    SamplingOptions,
    ModelOptions,
    *MODEL_TOPICS,
    OptimizerOptions,
    ScheduleOptions,
    TrackingOptions,
)
"""The option groups in the order in which they are shown."""


def _with_known_names(
    values: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Values of known options, spelled with underscores; names without effect; problems."""
    kept: dict[str, Any] = {}
    without_effect: list[str] = []
    problems: list[str] = []
    for spelled, value in values.items():
        name = canonical_name(str(spelled))
        if name in kept:
            problems.append(f"option {name!r} is given twice, under two spellings or names")
        elif name in known:
            kept[name] = value
        elif name in NO_EFFECT:
            without_effect.append(name)
        else:
            problems.append(problem_with_name(name, known))
    return kept, without_effect, problems


def _describe(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences for one error that pydantic reports."""
    where = "option " + repr(str(detail["loc"][0])) if detail["loc"] else ""
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, ConfigurationError):
        return problems_of(raised)
    if detail["type"] == "missing":
        return (f"{where} is required",)
    if raised is not None:
        return (f"{where}: {raised}",)
    expected = detail["msg"].replace("Input should be", "expected")
    if detail["type"] == "string_pattern_mismatch":
        expected = "becomes part of file names: use letters, digits and . _ + -"
    return (f"{where}: {expected}, found {detail['input']!r}",)
