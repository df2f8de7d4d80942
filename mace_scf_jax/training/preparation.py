"""Everything a run needs before its first step, made and checked without writing a file.

Preprocessing takes the same options, so that both prepare structures alike.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.backbones.backbone import as_tuples
from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.datasets import DataSets, head_places, load_datasets
from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.statistics import (
    average_number_of_neighbours,
    describe_formal_charges,
    set_record,
    surplus_charges,
)
from mace_scf_jax.messages import FILES_ONLY
from mace_scf_jax.models import (
    ModelSettings,
    TrainingSet,
    build,
    check_inputs,
    required_inputs,
)
from mace_scf_jax.training.batches import (
    batches_of_epochs,
    batches_of_set,
    batches_on_device,
    choose_forces,
    choose_sampling,
    common_mesh,
    evaluation_loader,
    make_loaders,
    sums_on_mesh,
    training_loader,
)
from mace_scf_jax.training.checks import (
    check_batch,
    check_groups,
    check_losses,
    check_number_of_parameters,
    warn_of_surplus,
)
from mace_scf_jax.training.config.options import TrainOptions, train_options
from mace_scf_jax.training.fingerprint import fingerprint
from mace_scf_jax.training.loop.data import EpochBatches, TrainingData
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.modes import ModelMode, modes_of
from mace_scf_jax.training.loop.sampling import ForceSupervision, Sampling
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.validation import VALIDATION
from mace_scf_jax.training.new_model import initial_parameters, model_settings, number_of_parameters
from mace_scf_jax.training.optimise import low_rank
from mace_scf_jax.training.optimise.low_rank import with_low_rank_updates
from mace_scf_jax.training.optimise.parameter_groups import Parameters, group_sizes
from mace_scf_jax.training.settings import data_settings, electrostatics_of, words_for_energies
from mace_scf_jax.training.start.beginning import (
    BATCHES_MEASURED,
    STRUCTURES_COMPARED,
    compare,
    estimated_energies,
    with_small_charges,
)
from mace_scf_jax.training.start.start_model import ESTIMATED, START, StartModel
from mace_scf_jax.training.start.weights import start_weights, with_new_elements

logger = logging.getLogger(__name__)


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
    trained_elements: tuple[int, ...]
    """Atomic numbers of the elements of the training structures."""
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

    def _energies(self) -> EpochBatches | None:
        """Batches without what only derivatives need, on the device where steps are made there."""
        loader = self.energies
        if loader is None:
            return None
        found = None
        if loader.parts == 1 and not loader.by_size:
            found = batches_on_device(loader, self.sampling)
        return found or batches_of_epochs(loader, self.force_supervision, self.sampling)

    def training_data(self, *, with_tests: bool) -> TrainingData:
        """Give the batches as the training loop takes them.

        Args:
            with_tests: whether to evaluate the test sets during training.
        """
        tests = [name for name in self.evaluation if name not in ("train", VALIDATION)]
        adaptive = self.sampling is not None and self.sampling.policy == "error_weighted"
        return TrainingData(
            training=batches_of_epochs(self.training, self.force_supervision, self.sampling),
            energies=self._energies(),
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
    start = StartModel.of(options)
    data = load_datasets(data_settings(options))
    if start is not None:
        if start.like:
            start = with_new_elements(start, start.like, data.train[0])
        data = _with_start_model(data, start, options)
    check_batch(options, len(data.train))
    sets = {"train": data.train, "valid": data.valid, **data.tests}
    pbc = np.concatenate([members.catalogue.pbc for members in sets.values()])
    electrostatics = electrostatics_of(options, start, pbc=pbc)
    features_of = BACKBONES[options.backbone].settings.features_of(options)
    features = None if features_of is None else features_of(data.elements).to_dict()
    direct = electrostatics is not None and not sums_on_mesh(electrostatics, sets.values())
    structures = {
        name: members.prepare(
            elements=data.elements,
            cutoff=options.cutoff,
            kspace_cutoff=electrostatics.indices_cutoff if direct else None,
            tails=None if electrostatics is None else electrostatics.tails,
            features=features,
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
    described = structures["train"].with_stored_features(derivatives=False)
    measured = evaluation["train"]
    if described is not None:
        measured = evaluation_loader(described, options, devices, mesh)
    training_set = TrainingSet(
        elements=data.elements,
        atomic_energies=as_tuples(data.atomic_energies.tolist()),
        electrostatics=electrostatics,
        catalogue=data.train.catalogue,
        batches=batches_of_set(measured.undivided()),
        heads=data.heads,
        head_of=head_places(data.train),
    )
    if start is None:
        settings = model_settings(options, training_set, avg_num_neighbors=neighbours)
    else:
        settings = start.new_settings(options, training_set)
    if required_inputs(settings):
        for members in sets.values():
            for entry in members:
                check_inputs(settings, entry)
    if options.family.formal_charges:
        charges = settings.own.formal_charges
        logger.info(describe_formal_charges(charges))
        warn_of_surplus(surplus_charges(structures["train"], charges))
    computed = _precomputed(structures, settings, options)
    if computed:
        training, evaluation = make_loaders({**structures, **computed}, options, devices, mesh)
    energies = _without_derivatives(structures["train"], settings, options, computed.get("train"))
    module = build(settings)
    example = next(iter(training.undivided().epoch(0)))
    modes = modes_of(module)
    supervision = choose_forces(options, data)
    check_losses(options, modes, data)
    parameters = initial_parameters(module, example, options=options)
    if start is not None:
        parameters = _started(start, settings, parameters, training_set, data, options)
    check_groups(options, parameters)
    check_number_of_parameters(options, number_of_parameters(parameters))
    _log_model(settings, parameters, neighbours)
    return Preparation(
        settings=settings,
        modes=modes,
        parameters=parameters,
        training=training,
        energies=energies and training_loader(energies, options, devices, mesh),
        evaluation=evaluation,
        valid_indices=data.valid_indices,
        trained_elements=tuple(data.train.catalogue.occurring_elements()),
        fingerprint=fingerprint(options, settings, data),
        data_record={
            name: set_record(
                members.catalogue,
                structures[name].sizes,
                elements=data.elements,
                atomic_energies=data.atomic_energies_of(members),
            )
            for name, members in sets.items()
        },
        force_supervision=supervision,
        sampling=choose_sampling(options, data),
    )


def _with_start_model(data: DataSets, start: StartModel, options: TrainOptions) -> DataSets:
    """The data with elements and atomic energies as a new model of the start model has them."""
    elements = start.elements(data.elements, options.start_elements)
    places, rows = head_places(data.train), []
    for place, word in enumerate(words_for_energies(options)):
        own = data.train if places is None else data.train.take(np.flatnonzero(places == place))
        given = np.atleast_2d(data.atomic_energies)[place]
        known = dict(zip(data.elements, given.tolist(), strict=True))
        if places is not None:
            known = {z: known[z] for z in own.catalogue.occurring_elements()}
        how = "those of the start model" if word == START else "as given"
        if data.has_isolated_atoms[place]:
            how = "isolated atoms of the training file"
        elif word in (None, ESTIMATED):
            known, rank = estimated_energies(start, own)
            how = f"estimated, rank {rank} of {len(known)}"
        energies = start.atomic_energies | known
        rows.append([energies[element] for element in elements])
        told = ", ".join(
            f"{chemical_symbols[z]} {energies[z]:.4f} (start model {start.atomic_energies[z]:.4f})"
            for z in elements
        )
        of = f" of the head {data.heads[place]}" if data.heads else ""
        logger.info("Energies of isolated atoms%s / eV: %s; %s", of, told, how)
    ordered = np.array(rows if places is not None else rows[0])
    return dataclasses.replace(data, elements=elements, atomic_energies=ordered)


def _started(
    start: StartModel,
    settings: ModelSettings,
    drawn: Parameters,
    training_set: TrainingSet,
    data: DataSets,
    options: TrainOptions,
) -> Parameters:
    """First parameters of a model that starts from another one, as they are trained."""
    parameters, provenance = start_weights(start, settings, drawn)
    if settings.of_family.is_charged and not start.is_of(settings.family):
        some = itertools.islice(training_set.batches(), BATCHES_MEASURED)
        parameters = with_small_charges(settings, parameters, some, charge=options.start_charge)
    compared = [data.train[row] for row in range(min(len(data.train), STRUCTURES_COMPARED))]
    compare(start, settings, parameters, compared)
    if options.lora is None:
        return parameters
    adapted = with_low_rank_updates(
        parameters, provenance.taken_over, seed=options.seed, **options.lora.model_dump()
    )
    logger.info("Low-rank updates: %s", low_rank.describe(adapted))
    return adapted


def _log_model(settings: ModelSettings, parameters: Parameters, neighbours: float) -> None:
    """What is trained."""
    parameters = low_rank.merged(parameters)
    backbone, count = settings.backbone, number_of_parameters(parameters)
    logger.info(
        "Model: %s, %d parameters, features %s, r_max %g Å, %.1f neighbours on average",
        *(settings.family, count, backbone.irreps, backbone.r_max, neighbours),
    )
    logger.info("Number of parameters: %d", count, extra=FILES_ONLY)
    groups = ", ".join(f"{group}: {size}" for group, size in group_sizes(parameters).items())
    logger.info("Parameter groups: %s", groups, extra=FILES_ONLY)


def _precomputed(
    structures: Mapping[str, StructureSet], settings: ModelSettings, options: TrainOptions
) -> dict[str, StructureSet]:
    """Those sets of which something is computed before the first epoch, or was stored."""
    found = {
        name: _precompute(members, settings, options, derivatives=True)
        for name, members in structures.items()
    }
    return {name: members for name, members in found.items() if members is not None}


def _without_derivatives(
    structures: StructureSet,
    settings: ModelSettings,
    options: TrainOptions,
    computed: StructureSet | None,
) -> StructureSet | None:
    """The training set as far as energies need it, if a stage reads no more and it can be had."""
    if all(stage.reads_derivatives for stage in options.train_schedule):
        return None
    if computed is not None:
        return computed.without_edges()
    return _precompute(structures, settings, options, derivatives=False)


def _precompute(
    structures: StructureSet, settings: ModelSettings, options: TrainOptions, *, derivatives: bool
) -> StructureSet | None:
    """A set with what the backbone needs not compute in every step."""
    return settings.backbone.precompute(
        structures, options, derivatives=derivatives, edges_are_read=settings.own.reads_edges
    )
