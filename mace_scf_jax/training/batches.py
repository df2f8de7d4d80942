"""The batches of a run: which structures, in which order, with which forces."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from jaxtyping import Int

from mace_scf_jax.boundary import repeated_cell
from mace_scf_jax.data.batching import BatchLoader, prefetched, share_buckets
from mace_scf_jax.data.datasets import DataSets
from mace_scf_jax.data.on_device import ChosenBatches, size_of_whole, whole_set
from mace_scf_jax.data.sets import ConfigurationSet, StructureSet
from mace_scf_jax.data.statistics import interaction_energies
from mace_scf_jax.electrostatics import ElectrostaticsSettings, choose_mesh, uses_mesh
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.data import EpochBatches
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.options import SamplingOptions
from mace_scf_jax.training.loop.sampling import ForceSupervision, Sampling

logger = logging.getLogger(__name__)

MOST_STEPS_TOGETHER = 32
"""Training steps that one call of a compiled function makes where batches are put together on the
device: they are so short that calls would take longer."""
MOST_BYTES_ON_DEVICE = 1_000_000_000
"""Largest set that is kept on the device as a whole."""


def sums_on_mesh(electrostatics: ElectrostaticsSettings, sets: Iterable[ConfigurationSet]) -> bool:
    """Whether the sums of a run are on a mesh, by its largest structure that could have one."""
    most = max(_most_on_mesh(electrostatics, each) for each in sets)
    return most > 0 and uses_mesh(electrostatics, most)


def _most_on_mesh(electrostatics: ElectrostaticsSettings, members: ConfigurationSet) -> int:
    """Most atoms of a structure; in the boundary condition ``exact`` open ones do not count."""
    catalogue = members.catalogue
    counts = catalogue.pbc.any(axis=1) | (electrostatics.tails is None)
    return int(np.max(catalogue.num_atoms, where=counts, initial=0))


def common_mesh(
    electrostatics: ElectrostaticsSettings,
    sets: Mapping[str, ConfigurationSet],
    structures: Mapping[str, StructureSet],
) -> Mesh | None:
    """Choose the mesh of all structures of a run; None if all are summed over pairs of atoms."""
    cells = [
        repeated_cell(cell, pbc, repeat) if repeat else cell
        for name, members in sets.items()
        for cell, pbc, repeat in zip(
            members.catalogue.cell,
            members.catalogue.pbc,
            structures[name].sizes.repeat,
            strict=True,
        )
        if not np.isinf(repeat)
    ]
    if not cells:
        return None
    most = max(_most_on_mesh(electrostatics, members) for members in sets.values())
    mesh = choose_mesh(electrostatics, np.stack(cells), most)
    logger.info("Coulomb sums on a mesh of %s", mesh)
    return mesh


def training_loader(
    structures: StructureSet, options: TrainOptions, devices: Devices, mesh: Mesh | None
) -> BatchLoader:
    """Make a loader of the batches to train with."""
    return BatchLoader(
        structures,
        batch_size=options.batch_size,
        shuffle=not options.sums_over_batches,
        by_size=options.sums_over_batches,
        seed=options.seed,
        drop_last=not options.sums_over_batches,
        layout="per_atom",
        dtype=options.default_dtype,
        repeats=options.sampling_policy != "uniform",
        parts=devices.count,
        own_parts=devices.own_parts,
        mesh=mesh,
    )


def evaluation_loader(
    structures: StructureSet, options: TrainOptions, devices: Devices, mesh: Mesh | None
) -> BatchLoader:
    """Make a loader of the batches of a set to evaluate."""
    return BatchLoader(
        structures,
        batch_size=options.valid_batch_size,
        layout="per_atom",
        dtype=options.default_dtype,
        parts=devices.count,
        own_parts=devices.own_parts,
        mesh=mesh,
    )


def make_loaders(
    structures: Mapping[str, StructureSet],
    options: TrainOptions,
    devices: Devices,
    mesh: Mesh | None,
) -> tuple[BatchLoader, dict[str, BatchLoader]]:
    """Make a loader to train with, and one per set to evaluate, which share padded sizes."""
    training = training_loader(structures["train"], options, devices, mesh)
    evaluation = {
        name: evaluation_loader(members, options, devices, mesh)
        for name, members in structures.items()
    }
    share_buckets(list(evaluation.values()))
    return training, evaluation


def choose_forces(options: TrainOptions, data: DataSets) -> ForceSupervision | None:
    """Choose on which forces the options want to be trained; None for all."""
    if options.force_fraction == 1.0:
        return None
    supervision = ForceSupervision(
        labelled=data.train.catalogue.weights["forces"] > 0.0,
        seed=options.seed,
        options=SamplingOptions.of(options),
    )
    logger.info(supervision.describe())
    return supervision


def choose_sampling(options: TrainOptions, data: DataSets) -> Sampling | None:
    """Choose how the options want structures to be drawn; None for each once."""
    if options.sampling_policy == "uniform":
        return None
    catalogue = data.train.catalogue
    return Sampling(
        policy=options.sampling_policy,
        seed=options.seed,
        energies=interaction_energies(
            catalogue, data.atomic_energies_of(data.train), data.elements
        ),
        labelled=catalogue.present["energy"],
    )


def batches_of_epochs(
    loader: BatchLoader, supervision: ForceSupervision | None, sampling: Sampling | None
) -> EpochBatches:
    """Give the batches of an epoch; the next ones are made by a thread while one is in use."""

    def batches(epoch: int, *, start: int = 0, losses: np.ndarray | None = None) -> Iterator[Graph]:
        indices = _batch_indices(loader, sampling, epoch, losses)[start:]
        graphs = loader.batches(indices)
        if supervision is not None:
            own = [loader.own(members) for members in indices]
            graphs = supervision.applied(graphs, own, epoch=epoch)
        return prefetched(graphs)

    return batches


def batches_on_device(loader: BatchLoader, sampling: Sampling | None) -> EpochBatches | None:
    """Give the batches of an epoch, put together on the device; None if the set is too large.

    Such batches take less time to compute than to be made on the host.

    Args:
        loader: of structures without edges, in one part.
        sampling: how structures are drawn, if not each once in an epoch.
    """
    if size_of_whole(loader.structures) > MOST_BYTES_ON_DEVICE:
        return None
    whole = whole_set(loader.structures, dtype=loader.dtype, mesh=loader.mesh)
    calls = -(-len(loader) // MOST_STEPS_TOGETHER)
    together = -(-len(loader) // calls)

    def batches(
        epoch: int, *, start: int = 0, losses: np.ndarray | None = None
    ) -> Iterator[ChosenBatches]:
        remaining = iter(_batch_indices(loader, sampling, epoch, losses)[start:])
        while some := list(itertools.islice(remaining, together)):
            sizes = max(map(loader.bucket_of, some), key=loader.buckets.index)
            yield ChosenBatches(whole, np.stack(some).astype(np.int32), sizes)

    return batches


def _batch_indices(
    loader: BatchLoader, sampling: Sampling | None, epoch: int, losses: np.ndarray | None
) -> list[Int[np.ndarray, "_"]]:
    """Positions of the structures of each batch of an epoch."""
    if sampling is None:
        return loader.batch_indices(epoch)
    return loader.split(sampling.order(epoch, losses))


def batches_of_set(loader: BatchLoader) -> Callable[[], Iterator[Graph]]:
    """Give all batches of a set, each time it is called."""
    return lambda: prefetched(loader.epoch(0))
