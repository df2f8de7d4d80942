"""All options of a training run as one typed, validated, immutable object; which have an effect."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, field_serializer, field_validator

from mace_scf_jax.backbones.backbone import BACKBONES, Offer
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.models.family import FAMILIES, Family, families_with
from mace_scf_jax.models.options import DispersionOptions, ElectrostaticsOptions
from mace_scf_jax.options import ConfigurationError, OneOf, OptionGroup, collecting
from mace_scf_jax.options.values import NoneInText, PositiveWholeNumber, names_in, parse_literal
from mace_scf_jax.plugins import load_installed_plugins, load_plugins
from mace_scf_jax.predict.error_tables import DEFAULT_ERROR_TABLE, ERROR_TABLES
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.training import losses
from mace_scf_jax.training.config.data_and_model import (
    DataOptions,
    ModelOptions,
)
from mace_scf_jax.training.config.options_of_mace import OPTIONS_OF_MACE, judge, with_ways
from mace_scf_jax.training.config.overrides import SCHEDULE, with_overrides
from mace_scf_jax.training.config.reading import (
    canonical_name,
    heads_from_keys,
    is_property_key,
    read_config_file,
)
from mace_scf_jax.training.loop.fixed_point_training import DEFAULT_TRAINING, OPTIONS_KEY
from mace_scf_jax.training.loop.options import SamplingOptions, ValidationOptions, WatchOptions
from mace_scf_jax.training.loop.schedule import (
    DEFAULT_LEARNING_RATE,
    Stage,
    describe_epochs,
    read_schedule,
    shortened,
)
from mace_scf_jax.training.optimise.options import OptimiserOptions, SchedulerOptions
from mace_scf_jax.training.records.options import TrackingOptions
from mace_scf_jax.training.records.run_files import RunOptions
from mace_scf_jax.training.start.options import StartOptions


class ScheduleOptions(OptionGroup):
    """Schedule and report"""

    decide_weights = False

    error_table: Annotated[str, OneOf(ERROR_TABLES)] = Field(
        default=DEFAULT_ERROR_TABLE,
        description="errors shown during and after training; auto: every one that data and model "
        "have",
    )
    max_num_epochs: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None,
        description="shorten all stages in proportion, to at least one epoch each, so that they "
        "have so many epochs together",
    )
    train_schedule: tuple[Stage, ...] = Field(
        description="stages {0: {name, start, end, loss: {term: weight, …} (or force_weight: share "
        "of the RMSE of the forces, the rest being that of the energies), lr, "
        "<parameter group>_lr, freeze: [parameter group, …], fixed_point_training_options}, 1: …}, "
        "with first and last epoch "
        "(both included)"
    )

    @field_serializer("train_schedule")
    def _as_mapping(self, stages: tuple[Stage, ...]) -> dict[int, dict[str, Any]]:
        """The form of a configuration file."""
        return {index: stage.to_mapping() for index, stage in enumerate(stages)}

    @field_validator("train_schedule", mode="plain")
    @classmethod
    def _read(cls, schedule: Any, info: Any) -> tuple[Stage, ...]:
        stages = schedule
        if not (isinstance(schedule, tuple) and all(isinstance(it, Stage) for it in schedule)):
            if isinstance(schedule, str):
                schedule = parse_literal(schedule)
            default_lr = info.data.get("lr", DEFAULT_LEARNING_RATE)
            stages = read_schedule(schedule, default_lr=default_lr)
        model = info.data.get("model")
        if model is not None and FAMILIES[model].is_self_consistent:
            stages = tuple(stage.with_fixed_point(DEFAULT_TRAINING) for stage in stages)
        return shortened(stages, info.data.get("max_num_epochs"))


OF_MOST_BACKBONES = ("r_max", "MLP_irreps", "gate", "avg_num_neighbors")
"""Options of the model that not every backbone has."""


def model_topics() -> tuple[type[OptionGroup], ...]:
    """Return the options that matter to some backbones or families only, those of plugins too."""
    return (
        *(backbone.options for backbone in BACKBONES.values()),
        ElectrostaticsOptions,
        *dict.fromkeys(group for family in FAMILIES.values() for group in family.options),
    )


class TrainOptions(
    WatchOptions,
    TrackingOptions,
    ScheduleOptions,
    SchedulerOptions,
    OptimiserOptions,
    SamplingOptions,
    *reversed(model_topics()),
    StartOptions,
    DispersionOptions,
    ModelOptions,
    DataOptions,
    ValidationOptions,
    RunOptions,
):
    """Options of a training run, under the names of the PyTorch reference.

    Args:
        **values: option values; names may be spelled with ``-`` or ``_``.

    Raises:
        ConfigurationError: lists every unknown name, missing option and wrong value.
    """

    called = "option"
    _remarks: tuple[str, ...] = PrivateAttr(default=())

    def __init__(self, **values: Any):
        given = values
        values, remarks, problems = _understood(given, type(self).model_fields)
        with collecting(problems):
            super().__init__(**values)
        if not problems and self.start_from is not None:
            with collecting(problems):
                from mace_scf_jax.training.start.start_model import contradictions  # slow to import

                problems += contradictions(self, {canonical_name(str(name)) for name in given})
        if problems:
            raise ConfigurationError(*with_ways(problems, given))
        self._remarks = tuple(remarks)

    def problems(self) -> list[str]:
        """Tell what does not go together."""
        general = [topic for topic in topics() if topic not in model_topics()]
        problems = [problem for topic in general for problem in topic.problems(self)]
        try:
            several = KeySpecification.from_heads(self.all_heads).heads
            if several and Offer.HEADS not in BACKBONES[self.backbone].offers:
                problems.append(
                    f"heads: expected one with the backbone {self.backbone}, found {len(several)}"
                )
        except DataError as error:
            problems.append(str(error))
        if not self.compute_forces:
            problems.append("option 'compute_forces': must be true, found false")
        if self.start_from is None and self.E0s in ("start", "estimated"):
            problems.append(f"option 'E0s': {self.E0s} needs 'start_from', the model to start from")
        sized = {"num_channels", "max_L"} & self.model_fields_set
        if self.start_from is None or sized:  # else the sizes are those of the start model
            problems += BACKBONES[self.backbone].options.problems(self)
        if self.start_from and self.max_energy is not None and self.E0s in (None, "estimated"):
            problems.append(
                "option 'max_energy': needs energies of isolated atoms before any are estimated; "
                "give 'E0s'"
            )
        problems += [
            f"model {self.model}: {problem}"
            for group in self.family.options
            for problem in group.problems(self)
        ]
        if self.log_on_test_sets and self.test_file is None:
            problems.append("option 'log_on_test_sets': needs a 'test_file'")
        problems += [
            f"wandb_log_hypers: {unknown_name('option', name, type(self).model_fields)}"
            for name in self.wandb_log_hypers or ()
            if name not in type(self).model_fields
        ]
        problems += [
            f"train_schedule, stage {index} ({stage.name}): the loss term {term!r} needs "
            "compute_stress: true"
            for index, stage in enumerate(self.train_schedule)
            for term in stage.loss
            if {"stress", "virials"} & {*losses.LOSSES[term].predictions}
            and not self.compute_stress
        ]
        return problems + self._problems_with_modes() + self._problems_with_one_loss()

    def _problems_with_one_loss(self) -> list[str]:
        """What changes the loss between steps that have to be of one loss."""
        if not self.has_one_loss:
            return []
        found = {
            "sampling_policy": self.sampling_policy != "uniform",
            "force_resample_epochs": self.force_resample_epochs is not None,
            "devices": self.devices != 1,
            "distributed": self.distributed,
        }
        problems = [
            f"option {name!r}: cannot be used with the optimizer {self.optimizer}, all steps of "
            "which are on the same structures and on one device"
            for name, given in found.items()
            if given
        ]
        problems += [
            f"train_schedule, stage {index} ({stage.name}): {rate!r} must be absent with the "
            f"optimizer {self.optimizer}, which finds the length of its steps by trying"
            for index, stage in enumerate(self.train_schedule)
            for rate in stage.rates
            if rate != "lr"
        ]
        problems += [
            f"train_schedule, stage {index} ({stage.name}): 'freeze' cannot be used with the "
            f"optimizer {self.optimizer}; adam can"
            for index, stage in enumerate(self.train_schedule)
            if stage.freeze and self.sums_over_batches
        ]
        if self.sums_over_batches and self.lora is not None:
            problems.append(
                f"option 'lora': cannot be used with the optimizer {self.optimizer}; adam can"
            )
        if self.sums_over_batches and self.family.is_self_consistent:
            problems.append(
                f"optimizer {self.optimizer!r}: cannot be used with {self.family.name}, whose "
                "charges are searched for; adam can"
            )
        return problems

    def _problems_with_modes(self) -> list[str]:
        """Stages that say how a fixed-point model is trained, for another model."""
        if self.family.is_self_consistent:
            return []
        owners = " or ".join(name for name in FAMILIES if FAMILIES[name].is_self_consistent)
        return [
            f"train_schedule, stage {index} ({stage.name}): {OPTIONS_KEY!r} must be absent, "
            f"because it belongs to the model {owners}"
            for index, stage in enumerate(self.train_schedule)
            if stage.fixed_point is not None
        ]

    @property
    def all_heads(self) -> dict[str, Any]:
        """The option `heads`, and the head of replay."""
        if self.replay is None:
            return self.heads
        from mace_scf_jax.training.start.replay import with_replay  # slow to import

        return with_replay(self.heads, self.replay)

    @property
    def keys(self) -> KeySpecification:
        """Which key of the data files holds which property."""
        return KeySpecification.from_heads(self.all_heads)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on what was given in another form, or changes nothing, for the log."""
        if self.max_num_epochs is None:
            return self._remarks
        shown = describe_epochs(self.train_schedule)
        return (*self._remarks, f"max_num_epochs {self.max_num_epochs}: the stages are {shown}")

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
    def cutoff(self) -> float:
        """Cutoff of the edges in Å."""
        return BACKBONES[self.backbone].settings.cutoff_of(self)

    @property
    def family(self) -> Family:
        """The family of the model."""
        return FAMILIES[self.model]


def train_options(base: type[TrainOptions] = TrainOptions) -> type[TrainOptions]:
    """Return the options of a run with those that plugins have added since."""
    added = tuple(topic for topic in model_topics() if not issubclass(base, topic))
    return _extended(base, added) if added else base


@functools.cache
def _extended(base: type[TrainOptions], added: tuple[type[OptionGroup], ...]) -> type[TrainOptions]:
    return type(base.__name__, (base, *added), {"__doc__": base.__doc__, "__module__": __name__})


def options_from(
    config: TrainOptions | Mapping[str, Any] | str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    base: type[TrainOptions] = TrainOptions,
) -> TrainOptions:
    """The options that a configuration gives.

    Args:
        config: the options themselves, values by name, or the path of a YAML file.
        given: further values by name, which win.
        base: type of the options of the command.

    Raises:
        ConfigurationError: the file cannot be read, or options are unknown, missing or wrong.
        PluginError: a plugin that is named cannot be loaded.
    """
    given = given or {}
    if isinstance(config, TrainOptions):
        if not given:
            return config
        config = {name: getattr(config, name) for name in config.model_fields_set}
    if not isinstance(config, Mapping):
        config = {} if config is None else read_config_file(config)
    named = {canonical_name(name) for name in given}
    kept = {name: value for name, value in config.items() if canonical_name(name) not in named}
    values = {**kept, **given}
    load_installed_plugins()
    load_plugins(names_in(values.get("plugins") or ()))
    return train_options(base)(**values)


def topics() -> tuple[type[OptionGroup], ...]:
    """Return the option groups in the order in which they are shown."""
    return (
        RunOptions,
        ValidationOptions,
        DataOptions,
        SamplingOptions,
        ModelOptions,
        DispersionOptions,
        StartOptions,
        *model_topics(),
        OptimiserOptions,
        SchedulerOptions,
        ScheduleOptions,
        TrackingOptions,
        WatchOptions,
    )


def owners(option: str) -> tuple[str, ...] | None:
    """Return the backbones or families that an option matters to; None for all."""
    topic = next(topic for topic in topics() if option in topic.model_fields)
    if topic not in model_topics():
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


_ON_PLATEAU = "it is of the scheduler ReduceLROnPlateau"


def ineffective(options: TrainOptions) -> list[str]:
    """Name each option that was changed and changes nothing, because of another one: a sentence."""
    fields = type(options).model_fields
    changed = [name for name in fields if getattr(options, name) != fields[name].default]
    found = [
        f"Option '{name}' has no effect: it is of {', '.join(owners(name) or ())}, not of "
        f"{options.model}"
        for name in changed
        if not matters_to(name, family=options.model, backbone=options.backbone)
    ]
    sizes = {field.name for field in dataclasses.fields(BACKBONES[options.backbone].settings)}
    found += [
        f"Option '{name}' has no effect: the backbone {options.backbone} has none"
        for name in OF_MOST_BACKBONES
        if name in changed and name not in sizes
    ]
    found += [
        f"Option '{name}' has no effect: {why}"
        for name, without_effect, why in (
            ("valid_fraction", options.valid_file is not None, "a valid_file is given"),
            (
                "avg_num_neighbors",
                options.compute_avg_num_neighbors,
                "it is measured; compute_avg_num_neighbors: false takes the number",
            ),
            (
                "lr",
                all(stage.lr != options.lr for stage in options.train_schedule),
                "every stage has its own lr",
            ),
            ("ema_decay", not options.ema, "it needs ema: true"),
            ("scheduler_min_lr", options.scheduler != "ReduceLROnPlateau", _ON_PLATEAU),
            *((name, True, f"{options.optimizer} does not use it") for name in options.unused),
            *(
                (
                    name,
                    not options.has_learning_rates,
                    f"{options.optimizer} finds the length of its steps",
                )
                for name in SchedulerOptions.model_fields
            ),
            ("wandb_watch", not options.wandb, "it needs wandb: true"),
        )
        if name in changed and without_effect
    ]
    if options.num_channels is not None and options.hidden_irreps is not None:
        found.append("Option 'hidden_irreps' has no effect: num_channels and max_L are given")
    if options.skip_scf_convergence_summary and (
        "scf_convergence_summary" in options.model_fields_set and options.scf_convergence_summary
    ):
        found.append(
            "Option 'scf_convergence_summary' has no effect: skip_scf_convergence_summary is true"
        )
    return found


def _understood(
    values: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Values of options from all that may be written: other spellings, paths, options of MACE.

    Returns:
        Values by the names of options; remarks for the log; problems.
    """
    given: dict[str, Any] = {}
    problems: list[str] = []
    for spelled, value in values.items():
        name = canonical_name(str(spelled))
        if name in given:
            problems.append(f"option {name!r} is given twice, under two spellings or names")
        given[name] = value
    overrides = {name: value for name, value in given.items() if "." in name}
    keys = {name: value for name, value in given.items() if is_property_key(name)}
    refused, remarks = judge(given, has_schedule=SCHEDULE in given)
    problems += refused
    problems += [
        unknown_name("option", name.partition(".")[0], known)
        for name in given
        if name.partition(".")[0] not in known and name not in OPTIONS_OF_MACE and name not in keys
    ]
    kept = {name: value for name, value in given.items() if name in known}
    with collecting(problems):
        kept |= heads_from_keys(keys, has_heads="heads" in kept)
    if all(name.partition(".")[0] in known for name in overrides):
        with collecting(problems):
            kept = with_overrides(kept, overrides)
            if any(path.startswith(SCHEDULE) for path in overrides):
                remarks.append(f"Changed in the schedule: {', '.join(overrides)}")
    with collecting(problems):
        decided: dict[str, Any] = {}
        if "start_from" in kept:
            from mace_scf_jax.training.start.start_model import taken_over  # slow to import

            decided = taken_over(kept, families=FAMILIES)
        decided = {name: value for name, value in decided.items() if name in known}
        kept |= decided
        if decided:
            told = ", ".join(f"{name} {value}" for name, value in decided.items())
            remarks.append(f"Taken from the start model: {told}")
    return kept, remarks, problems
