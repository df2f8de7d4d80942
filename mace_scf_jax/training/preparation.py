"""Everything a run needs before its first step, made and checked without writing a file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mace_scf_jax.data.batching import BatchLoader, prefetched, share_buckets
from mace_scf_jax.data.datasets import DataSets, DataSettings, load_datasets
from mace_scf_jax.data.sets import ConfigurationSet, StructureSet
from mace_scf_jax.data.statistics import (
    average_number_of_neighbours,
    describe_formal_charges,
    interaction_energies,
    set_record,
    surplus_charges,
)
from mace_scf_jax.electrostatics import ElectrostaticsSettings, choose_mesh
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh
from mace_scf_jax.models import (
    ModelSettings,
    TrainingSet,
    build,
    check_inputs,
    required_inputs,
)
from mace_scf_jax.models.electrostatics import electrostatics_settings, multipoles_max_l
from mace_scf_jax.parameter_group import WEIGHT_DECAY
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.force_supervision import ForceSupervision
from mace_scf_jax.training.loop.loop_settings import EpochBatches, LoopSettings, TrainingData
from mace_scf_jax.training.loop.sampling_policy import Sampling
from mace_scf_jax.training.loop.steps import Mode
from mace_scf_jax.training.loop.watching import WatchSettings
from mace_scf_jax.training.losses.registry import check_terms
from mace_scf_jax.training.model_setup import (
    initial_parameters,
    model_settings,
    modes_of,
    number_of_parameters,
    output_names,
)
from mace_scf_jax.training.optimise.learning_rates import SchedulerSettings
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.parameter_groups import Parameters, group_sizes

logger = logging.getLogger(__name__)

OPTIONS_THAT_DECIDE_WEIGHTS = (
    "seed",
    "default_dtype",
    "batch_size",
    "optimizer",
    "beta",
    "beta_two",
    "weight_decay",
    "amsgrad",
    "ema",
    "ema_decay",
    "clip_grad",
    "scheduler",
    "lr_factor",
    "scheduler_patience",
    "lr_scheduler_gamma",
)
"""Options that must not change when a run is resumed, besides model, data and schedule."""
FIXED_POINT_OPTIONS_THAT_DECIDE_WEIGHTS = (
    "fixedpoint_initial_charge_head_scale",
    "field_block_weight_decay",
    "local_charges_weight_decay",
)
"""Those of self-consistent families only."""
SMALLEST_SURPLUS = 1e-3
"""Of formal charges over the total charge, in e; less is rounding of the data."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A run that is ready to start."""

    settings: ModelSettings
    modes: Callable[[Stage], Mode]
    """How each stage uses the model."""
    parameters: Parameters
    training: BatchLoader
    evaluation: Mapping[str, BatchLoader]
    """Loaders in a fixed order by the name of the set: train, valid, then the test sets."""
    label_weights: Mapping[str, float]
    """Sum of the weights of each label over the training set."""
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

    def training_data(self, *, with_tests: bool) -> TrainingData:
        """The batches as the training loop takes them.

        Args:
            with_tests: whether to evaluate the test sets during training.
        """
        tests = [name for name in self.evaluation if name not in ("train", "valid")]
        adaptive = self.sampling is not None and self.sampling.policy == "error_weighted"
        return TrainingData(
            training=_in_background(self.training, self.force_supervision, self.sampling),
            sampled=_whole(self.evaluation["train"]) if adaptive else None,
            sampled_structures=len(self.training.structures) if adaptive else None,
            validation=_whole(self.evaluation["valid"]),
            label_weights=self.label_weights,
            monitored={n: _whole(self.evaluation[n]) for n in tests} if with_tests else {},
        )


def prepare_run(options: TrainOptions, devices: Devices | None = None) -> Preparation:
    """Load and check data, make the model and its initial parameters.

    Args:
        options: of the run.
        devices: that share the work on each batch; one if none are given.

    Raises:
        DataError: files or their contents cannot be used.
        LossError: a stage needs a label or model output that does not exist.
        ValueError: the model cannot be built.
    """
    data = load_datasets(data_settings(options))
    sets = {"train": data.train, "valid": data.valid, **data.tests}
    electrostatics = electrostatics_settings(
        options.family,
        options,
        pbc=np.concatenate([members.catalogue.pbc for members in sets.values()]),
    )
    mesh = None if electrostatics is None else _common_mesh(electrostatics, sets.values())
    direct = electrostatics is not None and mesh is None
    structures = {
        name: members.prepare(
            elements=data.elements,
            cutoff=options.r_max,
            kspace_cutoff=electrostatics.indices_cutoff if direct else None,
        )
        for name, members in sets.items()
    }
    neighbours = options.avg_num_neighbors
    if options.compute_avg_num_neighbors:
        neighbours = average_number_of_neighbours(structures["train"].sizes)
    logger.info(f"Average number of neighbors: {neighbours}")
    devices = Devices() if devices is None else devices
    training, evaluation = _loaders(structures, options, devices, mesh)
    settings = model_settings(
        options,
        TrainingSet(
            elements=data.elements,
            atomic_energies=tuple(float(energy) for energy in data.atomic_energies),
            electrostatics=electrostatics,
            catalogue=data.train.catalogue,
            batches=_whole(evaluation["train"].undivided()),
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
    logger.info("Building model %s", settings.family)
    logger.info("Hidden irreps: %s", settings.backbone.irreps)
    module = build(settings)
    example = next(iter(training.undivided().epoch(0)))
    modes = modes_of(module)
    label_weights = data.train.catalogue.label_weights()
    supervision = _force_supervision(options, data)
    outputs: dict[Mode, tuple[str, ...]] = {}
    for index, stage in enumerate(options.train_schedule):
        mode = modes(stage)
        if mode not in outputs:
            outputs[mode] = output_names(module, mode, example, stress=options.compute_stress)
        where = f"train_schedule, stage {index} ({stage.name})"
        check_terms(stage.loss, outputs[mode], label_weights, where=where)
    parameters = initial_parameters(module, example, options=options)
    logger.info("Number of parameters: %d", number_of_parameters(parameters))
    groups = ", ".join(f"{group}: {size}" for group, size in group_sizes(parameters).items())
    logger.info("Parameter groups: %s", groups)
    return Preparation(
        settings=settings,
        modes=modes,
        parameters=parameters,
        training=training,
        evaluation=evaluation,
        label_weights=label_weights,
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
        sampling=_sampling(options, data),
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


def optimiser_settings(options: TrainOptions) -> OptimiserSettings:
    """The optimiser that the options describe."""
    return OptimiserSettings(
        optimizer=options.optimizer,
        beta=options.beta,
        beta_two=options.beta_two,
        weight_decay=options.weight_decay,
        group_weight_decays=_group_weight_decays(options),
        amsgrad=options.amsgrad,
        clip_grad=options.clip_grad,
        ema_decay=options.ema_decay if options.ema else None,
    )


def _group_weight_decays(options: TrainOptions) -> dict[str, float]:
    """Weight decays of parameter groups that have their own."""
    return {
        group.name: getattr(options, group.decay)
        for group in options.family.groups.values()
        if group.decay not in (None, WEIGHT_DECAY)
    }


def scheduler_settings(options: TrainOptions) -> SchedulerSettings:
    """The learning-rate scheduler that the options describe; schedulefree uses none."""
    return SchedulerSettings(
        scheduler=None if options.optimizer == "schedulefree" else options.scheduler,
        lr_factor=options.lr_factor,
        scheduler_patience=options.scheduler_patience,
        lr_scheduler_gamma=options.lr_scheduler_gamma,
    )


def loop_settings(options: TrainOptions) -> LoopSettings:
    """When the options ask to validate, to stop, to keep checkpoints and to look closer."""
    return LoopSettings(
        eval_interval=options.eval_interval,
        patience=options.patience,
        keep_checkpoints=options.keep_checkpoints,
        save_all_checkpoints=options.save_all_checkpoints,
        watched=WatchSettings(
            summary=options.debug_log_grad_summary,
            histograms=options.wandb_watch if options.wandb else "off",
            interval=options.wandb_watch_log_freq,
        ),
    )


def data_settings(options: TrainOptions) -> DataSettings:
    """The files that the options name, and how to read them."""
    return DataSettings(
        train_file=options.train_file,
        keys=options.keys,
        multipoles_max_l=multipoles_max_l(options.family, options),
        valid_file=options.valid_file,
        test_file=options.test_file,
        valid_fraction=options.valid_fraction,
        valid_set_seed=options.split_seed,
        work_dir=options.work_dir,
        E0s=options.E0s,
        max_energy=options.max_energy,
        max_forces=options.max_forces,
        config_type_weights=options.config_type_weights,
        electrostatic_pbc_method=options.electrostatic_pbc_method,
        override_pbc_checks=options.override_pbc_checks,
        allow_low_density_pbc=options.allow_low_density_pbc,
        low_density_pbc_max_volume_per_atom=options.low_density_pbc_max_volume_per_atom,
    )


def _common_mesh(
    electrostatics: ElectrostaticsSettings, sets: Iterable[ConfigurationSet]
) -> Mesh | None:
    """The mesh of all structures of a run; None for direct sums."""
    catalogues = [members.catalogue for members in sets]
    cells = np.concatenate([catalogue.cell for catalogue in catalogues])
    most = max(int(catalogue.num_atoms.max()) for catalogue in catalogues)
    mesh = choose_mesh(electrostatics, cells, most)
    if mesh is not None:
        logger.info("Coulomb sums on a mesh of %s", mesh)
    return mesh


def _loaders(
    structures: Mapping[str, StructureSet],
    options: TrainOptions,
    devices: Devices,
    mesh: Mesh | None,
) -> tuple[BatchLoader, dict[str, BatchLoader]]:
    """The loader to train with, and one per set to evaluate, which share their padded sizes."""
    training = BatchLoader(
        structures["train"],
        batch_size=options.batch_size,
        shuffle=True,
        seed=options.seed,
        drop_last=True,
        layout="per_atom",
        dtype=options.default_dtype,
        repeats=options.sampling_policy != "uniform",
        parts=devices.count,
        own_parts=devices.own_parts,
        mesh=mesh,
    )
    evaluation = {
        name: BatchLoader(
            members,
            batch_size=options.valid_batch_size,
            layout="per_atom",
            dtype=options.default_dtype,
            parts=devices.count,
            own_parts=devices.own_parts,
            mesh=mesh,
        )
        for name, members in structures.items()
    }
    share_buckets(list(evaluation.values()))
    return training, evaluation


def _force_supervision(options: TrainOptions, data: DataSets) -> ForceSupervision | None:
    """Which forces the options want to be trained on; None for all."""
    if options.force_fraction == 1.0:
        return None
    supervision = ForceSupervision(
        labelled=data.train.catalogue.weights["forces"] > 0.0,
        seed=options.seed,
        fraction=options.force_fraction,
        resample_epochs=options.force_resample_epochs,
        min_structures=options.force_min_structures,
        unbiased=options.force_scale_unbiased,
    )
    logger.info(supervision.describe())
    return supervision


def _sampling(options: TrainOptions, data: DataSets) -> Sampling | None:
    """How the options want structures to be drawn; None for each once."""
    if options.sampling_policy == "uniform":
        return None
    catalogue = data.train.catalogue
    return Sampling(
        policy=options.sampling_policy,
        seed=options.seed,
        energies=interaction_energies(catalogue, data.atomic_energies, data.elements),
        labelled=catalogue.present["energy"],
    )


def _in_background(
    loader: BatchLoader, supervision: ForceSupervision | None, sampling: Sampling | None
) -> EpochBatches:
    """The batches of an epoch, the next ones being made while one is in use."""

    def batches(epoch: int, *, start: int = 0, losses: np.ndarray | None = None) -> Iterator[Graph]:
        indices = loader.batch_indices(epoch)
        if sampling is not None:
            indices = loader.split(sampling.order(epoch, losses))
        indices = indices[start:]
        graphs = loader.batches(indices)
        if supervision is not None:
            own = [loader.own(members) for members in indices]
            graphs = supervision.applied(graphs, own, epoch=epoch)
        return prefetched(graphs)

    return batches


def _whole(loader: BatchLoader) -> Callable[[], Iterator[Graph]]:
    """All batches of a set, each time it is called."""
    return lambda: prefetched(loader.epoch(0))


def _fingerprint(options: TrainOptions, settings: ModelSettings, data: DataSets) -> dict[str, Any]:
    names = OPTIONS_THAT_DECIDE_WEIGHTS
    if options.family.is_self_consistent:
        names += FIXED_POINT_OPTIONS_THAT_DECIDE_WEIGHTS
    return {
        "options": {name: getattr(options, name) for name in names} | options.changed_sampling(),
        "model": settings.to_dict(),
        "training_data": data.train.catalogue.content_digest(),
        "validation_data": data.valid.catalogue.content_digest(),
    }
