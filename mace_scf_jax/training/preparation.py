"""Everything a run needs before its first step, made and checked without writing a file.

Preprocessing takes the same options, so that both prepare structures alike.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.datasets import DataSets, DataSettings, load_datasets
from mace_scf_jax.data.preprocessing import PreprocessSettings
from mace_scf_jax.data.sets import StructureSet, StructuresInMemory
from mace_scf_jax.data.statistics import (
    average_number_of_neighbours,
    describe_formal_charges,
    set_record,
    surplus_charges,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.drawn import drawn_parameters
from mace_scf_jax.messages import FILES_ONLY
from mace_scf_jax.models import (
    ModelSettings,
    TrainingSet,
    build,
    check_inputs,
    required_inputs,
)
from mace_scf_jax.models.electrostatics import electrostatics_settings, multipoles_max_l
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.options.values import FilePath
from mace_scf_jax.parameter_group import WEIGHT_DECAY
from mace_scf_jax.training.batches import (
    batches_of_epochs,
    batches_of_set,
    choose_forces,
    choose_sampling,
    common_mesh,
    make_loaders,
    sums_on_mesh,
    training_loader,
)
from mace_scf_jax.training.config.options import TrainOptions, matters_to, topics, train_options
from mace_scf_jax.training.loop.data import TrainingData
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.modes import ModelMode, in_double_precision, modes_of
from mace_scf_jax.training.loop.sampling import ForceSupervision, Sampling
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.validation import VALIDATION
from mace_scf_jax.training.loop.watching import WatchOptions
from mace_scf_jax.training.losses import LossError, check_terms, check_validation
from mace_scf_jax.training.optimise.learning_rates import SchedulerOptions
from mace_scf_jax.training.optimise.levenberg_marquardt import MOST_PARAMETERS
from mace_scf_jax.training.optimise.optimiser import OptimiserOptions, OptimiserSettings
from mace_scf_jax.training.optimise.parameter_groups import Parameters, group_sizes

logger = logging.getLogger(__name__)

MOST_STEPS_TOGETHER = 32
"""Training steps without forces that one call of a compiled function makes: they are so short that
calls would take longer."""
SMALLEST_SURPLUS = 1e-3
"""Of formal charges over the total charge, in e; less is rounding of the data."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A run that is ready to start."""

    settings: ModelSettings
    modes: Callable[[Stage], ModelMode]
    """How each stage uses the model."""
    parameters: Parameters
    training: BatchLoader
    energies: BatchLoader | None
    """Of the same batches as far as energies need them, where the backbone knows that."""
    evaluation: Mapping[str, BatchLoader]
    """Loaders in a fixed order by the name of the set: train, valid, then the test sets."""
    valid_indices: tuple[int, ...]
    """Positions in the training file of a random validation set."""
    fingerprint: Mapping[str, Any]
    """What must be the same when the run is resumed."""
    data_record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Statistics of every set by name, for the model files."""
    force_supervision: ForceSupervision | None = None
    """Which forces are trained on, if not all are."""
    sampling: Sampling | None = None
    """How structures are drawn, if not each once in an epoch."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Defaults of the options in the fingerprint."""
        fields = train_options().model_fields
        return {name: fields[name].default for name in self.fingerprint["options"]}

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.training) if self.training.shuffle else 1

    def training_data(self, *, with_tests: bool) -> TrainingData:
        """Give the batches as the training loop takes them.

        Args:
            with_tests: whether to evaluate the test sets during training.
        """
        tests = [name for name in self.evaluation if name not in ("train", VALIDATION)]
        adaptive = self.sampling is not None and self.sampling.policy == "error_weighted"
        alone = self.training.parts == 1
        together = min(len(self.training), MOST_STEPS_TOGETHER) if alone else 1
        return TrainingData(
            training=batches_of_epochs(self.training, self.force_supervision, self.sampling),
            energies=None
            if self.energies is None
            else batches_of_epochs(
                self.energies, self.force_supervision, self.sampling, together=together
            ),
            together=together,
            sampled=batches_of_set(self.evaluation["train"]) if adaptive else None,
            sampled_structures=len(self.training.structures) if adaptive else None,
            sets={
                name: batches_of_set(self.evaluation[name])
                for name in (VALIDATION, *(tests if with_tests else ()))
            },
        )


def prepare_run(options: TrainOptions, devices: Devices | None = None) -> Preparation:
    """Load and check data, make the model and its initial parameters.

    Args:
        devices: that share the work on each batch; one if none are given.

    Raises:
        DataError: files or their contents cannot be used.
        LossError: a stage needs a label or model output that does not exist.
        ValueError: the model cannot be built.
    """
    data = load_datasets(data_settings(options))
    _check_batch(options, len(data.train))
    sets = {"train": data.train, "valid": data.valid, **data.tests}
    electrostatics = electrostatics_settings(
        options.family,
        options,
        pbc=np.concatenate([members.catalogue.pbc for members in sets.values()]),
    )
    direct = electrostatics is not None and not sums_on_mesh(electrostatics, sets.values())
    structures = {
        name: members.prepare(
            elements=data.elements,
            cutoff=options.cutoff,
            kspace_cutoff=electrostatics.indices_cutoff if direct else None,
            tails=None if electrostatics is None else electrostatics.tails,
        )
        for name, members in sets.items()
    }
    mesh = None
    if electrostatics is not None and not direct:
        mesh = common_mesh(electrostatics, sets, structures)
    neighbours = options.avg_num_neighbors
    if options.compute_avg_num_neighbors:
        neighbours = average_number_of_neighbours(structures["train"].sizes)
    logger.info("Average number of neighbors: %s", neighbours, extra=FILES_ONLY)
    devices = Devices() if devices is None else devices
    training, evaluation = make_loaders(structures, options, devices, mesh)
    settings = model_settings(
        options,
        TrainingSet(
            elements=data.elements,
            atomic_energies=tuple(float(energy) for energy in data.atomic_energies),
            electrostatics=electrostatics,
            catalogue=data.train.catalogue,
            batches=batches_of_set(evaluation["train"].undivided()),
        ),
        avg_num_neighbors=neighbours,
    )
    if required_inputs(settings):
        for members in sets.values():
            for entry in members:
                check_inputs(settings, entry)
    if options.family.formal_charges:
        charges = settings.own.formal_charges
        logger.info(describe_formal_charges(charges))
        _warn_of_surplus(surplus_charges(structures["train"], charges))
    computed = _precomputed(structures, settings, options)
    if computed:
        structures = {**structures, **computed}
        training, evaluation = make_loaders(structures, options, devices, mesh)
    energies = _without_derivatives(structures["train"], settings, options, computed.get("train"))
    module = build(settings)
    example = next(iter(training.undivided().epoch(0)))
    modes = modes_of(module)
    supervision = choose_forces(options, data)
    _check_losses(options, modes, data)
    parameters = initial_parameters(module, example, options=options)
    _check_number_of_parameters(options, number_of_parameters(parameters))
    _log_model(settings, parameters, neighbours)
    return Preparation(
        settings=settings,
        modes=modes,
        parameters=parameters,
        training=training,
        energies=energies and training_loader(energies, options, devices, mesh),
        evaluation=evaluation,
        valid_indices=data.valid_indices,
        fingerprint=_fingerprint(options, settings, data),
        data_record={
            name: set_record(
                members.catalogue,
                structures[name].sizes,
                elements=data.elements,
                atomic_energies=data.atomic_energies,
            )
            for name, members in sets.items()
        },
        force_supervision=supervision,
        sampling=choose_sampling(options, data),
    )


def _log_model(settings: ModelSettings, parameters: Parameters, neighbours: float) -> None:
    """What is trained."""
    backbone, count = settings.backbone, number_of_parameters(parameters)
    logger.info(
        "Model: %s, %d parameters, features %s, r_max %g Å, %.1f neighbours on average",
        *(settings.family, count, backbone.irreps, backbone.r_max, neighbours),
    )
    logger.info("Number of parameters: %d", count, extra=FILES_ONLY)
    groups = ", ".join(f"{group}: {size}" for group, size in group_sizes(parameters).items())
    logger.info("Parameter groups: %s", groups, extra=FILES_ONLY)


def _check_batch(options: TrainOptions, structures: int) -> None:
    """Refuse steps of lbfgs on a part of the training set."""
    if options.optimizer == "lbfgs" and options.batch_size < structures:
        raise ConfigurationError(
            "optimizer 'lbfgs': needs all training structures in every step; expected a batch_size "
            f"of at least {structures}, found {options.batch_size}"
        )


def _check_number_of_parameters(options: TrainOptions, number: int) -> None:
    """Refuse a matrix of second derivatives that is too large."""
    if options.sums_over_batches and number > MOST_PARAMETERS:
        raise ConfigurationError(
            f"optimizer {options.optimizer!r}: expected a model of at most {MOST_PARAMETERS} "
            f"parameters, found {number}; adam and lbfgs are for larger ones"
        )


def _precomputed(
    structures: Mapping[str, StructureSet], settings: ModelSettings, options: TrainOptions
) -> dict[str, StructuresInMemory]:
    """Those sets of which the backbone computes something before the first epoch."""
    found = {
        name: _precompute(members, settings, options, derivatives=True)
        for name, members in structures.items()
    }
    return {name: members for name, members in found.items() if members is not None}


def _without_derivatives(
    structures: StructureSet,
    settings: ModelSettings,
    options: TrainOptions,
    computed: StructuresInMemory | None,
) -> StructuresInMemory | None:
    """The training set as far as energies need it, if a stage reads no more and it can be had."""
    if all(stage.reads_derivatives for stage in options.train_schedule):
        return None
    if computed is not None:
        return computed.without_edges()
    return _precompute(structures, settings, options, derivatives=False)


def _precompute(
    structures: StructureSet, settings: ModelSettings, options: TrainOptions, *, derivatives: bool
) -> StructuresInMemory | None:
    """What the backbone computes of a set before the first epoch."""
    return settings.backbone.precompute(
        structures, options, derivatives=derivatives, edges_are_read=settings.own.reads_edges
    )


def _check_losses(
    options: TrainOptions, modes: Callable[[Stage], ModelMode], data: DataSets
) -> None:
    """Refuse stages whose loss, or whose way to train, needs what the model or the data lack."""
    training = data.train.catalogue.label_weights()
    for index, stage in enumerate(options.train_schedule):
        mode = modes(stage)
        where = f"train_schedule, stage {index} ({stage.name})"
        check_terms(stage.loss, mode.outputs(stress=options.compute_stress), training, where=where)
        check_validation(stage.loss, data.valid.catalogue.label_weights(), where=where)
        if mode.needs_multipoles:
            _check_reference(data.train.catalogue.present["atomic_multipoles"], where)


def _check_reference(has_multipoles: np.ndarray, where: str) -> None:
    """Refuse steps from reference multipoles that no structure has; tell how many lack them."""
    if not has_multipoles.any():
        raise LossError(
            f"{where}: the mode direct takes one step from the reference multipoles, and no "
            "training configuration has atomic_multipoles; the mode implicit needs none"
        )
    if not has_multipoles.all():
        logger.warning(
            "%s: the mode direct takes a step from zero in %d of %d training configurations, which "
            "have no atomic_multipoles",
            *(where, int((~has_multipoles).sum()), len(has_multipoles)),
        )


def _warn_of_surplus(surplus: np.ndarray) -> None:
    """Formal charges decide the total charge, which no training can change."""
    wrong = np.abs(surplus) > SMALLEST_SURPLUS
    if wrong.any():
        logger.warning(
            "Formal charges do not add up to total_charge in %d of %d training configurations "
            "(they differ by up to %.3g e); total charges will be those of the formal charges",
            wrong.sum(),
            len(surplus),
            np.abs(surplus).max(),
        )


def model_settings(
    options: TrainOptions, training: TrainingSet, *, avg_num_neighbors: float
) -> ModelSettings:
    """Return the settings of the model that options and training set describe.

    Args:
        training: what is measured on.
        avg_num_neighbors: divisor of sums over neighbours.

    Raises:
        ConfigurationError: options and training set do not go together.
        ValueError: a size or choice does not exist.
    """
    family = options.family
    backbone = BACKBONES[options.backbone].settings.from_options(
        options,
        training,
        avg_num_neighbors=avg_num_neighbors,
        scalar_last_layer=not family.is_charged,
    )
    return ModelSettings(
        family=options.model,
        backbone=backbone,
        atomic_energies=training.atomic_energies,
        electrostatics=training.electrostatics,
        own=family.settings.from_options(options, training),
    )


def initial_parameters(module: nn.Module, graph: Graph, *, options: TrainOptions) -> Parameters:
    """Draw random parameters, in double precision so that both precisions start alike.

    Args:
        graph: any batch; only its shapes matter.
        options: of the run: seed, precision, and scale of the charge heads.
    """
    key = jax.random.key(options.seed)
    parameters = drawn_parameters(module, key, in_double_precision(graph))
    if options.family.initialise is not None:
        parameters = options.family.initialise(parameters, options)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, options.default_dtype), parameters)


def number_of_parameters(parameters: Parameters) -> int:
    """Count the trainable numbers."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))


def optimiser_settings(options: TrainOptions) -> OptimiserSettings:
    """Complete the options of the optimiser by the decays of a family's parameter groups."""
    decays = {
        group.name: getattr(options, group.decay)
        for group in options.family.groups.values()
        if group.decay not in (None, WEIGHT_DECAY)
    }
    given = OptimiserOptions.of(options).model_dump()
    return OptimiserSettings(**given, group_weight_decays=decays)


def scheduler_options(options: TrainOptions) -> SchedulerOptions | None:
    """Select the options of the learning-rate scheduler; schedulefree and lbfgs use none."""
    without = options.optimizer == "schedulefree" or not options.has_learning_rates
    return None if without else SchedulerOptions.of(options)


def watch_options(options: TrainOptions) -> WatchOptions:
    """Select what to look at more closely; histograms go to Weights & Biases alone."""
    watched = WatchOptions.of(options)
    return watched if options.wandb else watched.model_copy(update={"wandb_watch": "off"})


def data_settings(options: TrainOptions) -> DataSettings:
    """Tell which files the options name, and how to read them."""
    given = options.values_for(DataSettings) | {"valid_set_seed": options.split_seed}
    if not options.family.is_charged:
        given["electrostatic_pbc_method"] = None
    max_l = multipoles_max_l(options.family, options)
    return DataSettings(**given, keys=options.keys, multipoles_max_l=max_l)


class PreprocessOptions(TrainOptions):
    """The options of training, of which only those on data and model matter.

    So the file of a run can be used as it is, or ``heads`` and ``train_file`` alone be given: what
    training requires and preprocessing does not has a default here that nothing depends on.
    """

    train_file: FilePath = Field(description="training structures (.xyz, .xsf)")
    name: str = "preprocess"
    train_schedule: tuple[Stage, ...] = ()
    hidden_irreps: str | None = "1x0e"


def preprocess_settings(
    options: PreprocessOptions, *, workers: int, shard_megabytes: float
) -> PreprocessSettings:
    """What to compute for runs with the given options.

    Reciprocal vectors are stored if the model family has charges; with the boundary condition
    ``auto`` they are those of periodic structures, which a run on molecules alone does not read.

    Args:
        options: of the runs.
        workers: number of processes.
        shard_megabytes: size of the text that one file is made from.

    Raises:
        ConfigurationError: a dry run is asked for, which only training has.
        DataError: for numbers that are not positive.
    """
    if options.dry_run:
        raise ConfigurationError(
            "option 'dry_run': is of training; preprocessing writes what it reads"
        )
    electrostatics = electrostatics_settings(options.family, options, pbc=np.ones((1, 3), bool))
    return PreprocessSettings(
        data=data_settings(options),
        cutoff=options.cutoff,
        kspace_cutoff=None if electrostatics is None else electrostatics.indices_cutoff,
        tails=None if electrostatics is None else electrostatics.tails,
        workers=workers,
        shard_megabytes=shard_megabytes,
    )


def _fingerprint(options: TrainOptions, settings: ModelSettings, data: DataSets) -> dict[str, Any]:
    """What must be the same when the run is resumed, besides the schedule."""
    deciding = [
        name
        for topic in topics()
        for name in topic.deciding_weights()
        if matters_to(name, family=options.model, backbone=options.backbone)
    ]
    return {
        "options": {name: getattr(options, name) for name in deciding},
        "model": _deciding_settings(settings),
        "training_data": data.train.catalogue.content_digest(),
        "validation_data": data.valid.catalogue.content_digest(),
    }


def _deciding_settings(settings: ModelSettings) -> dict[str, Any]:
    """The settings of a model as runs of earlier versions saved them, where they say the same."""
    model = settings.to_dict()
    if model["electrostatics"] is not None:
        del model["electrostatics"]["surplus_at_centre"]
    if not settings.own.conserves_charge:
        for name in settings.of_family.stored_flat:
            del model[name]
    return model
