"""From files of structures to shards of prepared structures, with several processes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.data import checks
from mace_scf_jax.data.atom_features import AtomFeatures
from mace_scf_jax.data.datasets import DataSettings, check_sets
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import Place
from mace_scf_jax.data.reading import PREPROCESSED, Part, parts_of, to_configurations
from mace_scf_jax.data.sets import StructuresInMemory
from mace_scf_jax.data.shard import read_index, write_shard
from mace_scf_jax.data.shard_features import add_features
from mace_scf_jax.data.statistics import label_table
from mace_scf_jax.data.stored_set import StoredConfigurations, open_stored
from mace_scf_jax.data.structure import prepare_all

logger = logging.getLogger("mace_scf_jax")

Notify = Callable[[int, int], None]
"""Told how many structures are done, and how many there are."""

Result = TypeVar("Result")

MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """How to preprocess files.

    Attributes:
        data: which files to read, how, and what to check.
        cutoff: of the edges, Å.
        kspace_cutoff: of the reciprocal vectors, 1/Å; None to store none.
        tails: length in Å to which Gaussians reach, for the boundary condition ``exact``.
        features_of: features of atoms to store, by the elements of training and validation; None
            to store none.
        derivatives: whether to store derivatives of the features, too.
        workers: number of processes.
        shard_megabytes: size of the text that one shard is made from. A process holds the
            structures of one shard, which take about ten times as much memory.
    """

    data: DataSettings
    cutoff: float
    kspace_cutoff: float | None
    tails: float | None = None
    features_of: Callable[[tuple[int, ...]], AtomFeatures] | None = None
    derivatives: bool = False
    workers: int = 1
    shard_megabytes: float = 32.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DataError(f"workers: found {self.workers}, expected at least 1")
        if not self.shard_megabytes > 0.0:
            raise DataError(
                f"shard_megabytes: found {self.shard_megabytes}, expected a positive number"
            )

    @property
    def description(self) -> Description:
        """What the structures are prepared for."""
        return Description(
            keys=self.data.keys,
            multipoles_max_l=self.data.multipoles_max_l,
            cutoff=self.cutoff,
            kspace_cutoff=self.kspace_cutoff,
            tails=self.tails,
        )


@dataclasses.dataclass(frozen=True)
class _Task:
    """One shard to be made."""

    part: Part
    split: str
    path: Path
    number: int
    shards: int
    description: Description


def preprocess(
    settings: PreprocessSettings, folder: str | Path, *, notify: Notify = lambda done, total: None
) -> Path:
    """Write the structures of all files as shards, ready for training.

    Features of atoms are added once all structures are written, for only then all elements are
    known.

    The folder gets a folder ``train`` and, if there are such files, ``valid`` and ``test``. It
    appears when everything in it is complete; nothing is left behind by a failure.

    Raises:
        DataError: if a file or anything in it cannot be used, or the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder}: exists already; choose another folder or remove it")
    files = settings.data.files()
    parts = {
        split: parts_of(file, largest=int(settings.shard_megabytes * MEGABYTE))
        for split, file in files.items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    unfinished.mkdir()
    try:
        tasks = _tasks(parts, unfinished, settings)
        stored = _write_shards(tasks, settings.workers, notify)
        checks.check_keys_occur(stored["train"], settings.data.keys, files["train"])
        charged = settings.data.electrostatic_pbc_method is not None
        checks.warn_about_inputs(
            stored["train"], settings.data.keys, files["train"], charged=charged
        )
        sets = {split: open_stored(unfinished / split, split=split) for split in files}
        check_sets(sets, files, settings.data)
        if settings.features_of is not None:
            features = settings.features_of(_elements(sets))
            _check_species(sets, features)
            for members in sets.values():
                members.close()  # before they are written to
            _add_all_features(tasks, features, settings, notify)
            sets = {split: open_stored(unfinished / split, split=split) for split in files}
        _report(sets)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _tasks(
    parts: Mapping[str, Sequence[Part]], folder: Path, settings: PreprocessSettings
) -> list[_Task]:
    tasks = []
    for split, members in parts.items():
        (folder / split).mkdir()
        tasks += [
            _Task(
                part=part,
                split=split,
                path=folder / split / f"{number:06d}{PREPROCESSED}",
                number=number,
                shards=len(members),
                description=settings.description,
            )
            for number, part in enumerate(members)
        ]
    return tasks


def _write_shards(
    tasks: Sequence[_Task], workers: int, notify: Notify
) -> dict[str, dict[Place, set[str]]]:
    """Make all shards; the keys that the structures of each split have."""
    total, done = sum(task.part.count for task in tasks), 0
    stored: dict[str, dict[Place, set[str]]] = {}
    notify(0, total)
    for task, keys in _results(_write, tasks, workers):
        done += task.part.count
        notify(done, total)
        of_split = stored.setdefault(task.split, {"info": set(), "arrays": set()})
        for place, names in keys.items():
            of_split[place] |= names
    return stored


def _add_all_features(
    tasks: Sequence[_Task], features: AtomFeatures, settings: PreprocessSettings, notify: Notify
) -> None:
    """Add features to all shards."""
    add = functools.partial(_add_features, features=features, derivatives=settings.derivatives)
    total, done = sum(task.part.count for task in tasks), 0
    notify(0, total)
    for task, _ in _results(add, tasks, settings.workers):
        done += task.part.count
        notify(done, total)


def _results(
    make: Callable[[_Task], Result], tasks: Sequence[_Task], workers: int
) -> Iterator[tuple[_Task, Result]]:
    """Each task with its result, as they are done."""
    if workers == 1:
        for task in tasks:
            yield task, make(task)
        return
    # Not "fork": JAX has threads of its own, which do not survive it.
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_worker
    ) as pool:
        waiting = {pool.submit(make, task): task for task in tasks}
        try:
            for finished in concurrent.futures.as_completed(waiting):
                yield waiting[finished], finished.result()
        except BrokenProcessPool:
            raise DataError(
                "preprocessing: a worker process ended unexpectedly, perhaps for lack of memory; "
                "fewer workers or smaller shards need less"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave interrupts to the parent, and compute on the CPU: workers cannot share one device."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")


def _write(task: _Task) -> dict[Place, set[str]]:
    """Make one shard; the keys that its structures have."""
    part, description = task.part, task.description
    read = part.read()
    configurations = to_configurations(
        read, description.keys, multipoles_max_l=description.multipoles_max_l
    )
    numbers = np.unique(np.concatenate([entry.atomic_numbers for entry in configurations]))
    structures = prepare_all(
        configurations,
        elements=[int(number) for number in numbers],
        cutoff=description.cutoff,
        kspace_cutoff=description.kspace_cutoff,
        tails=description.tails,
    )
    write_shard(task.path, structures, description, number=task.number, shards=task.shards)
    return checks.stored_keys(read.atoms)


def _add_features(task: _Task, *, features: AtomFeatures, derivatives: bool) -> None:
    """Add features to one shard."""
    description = task.description
    stored = open_stored(task.path, split=task.split)
    structures = StructuresInMemory(
        stored.prepare(
            elements=features.elements,
            cutoff=description.cutoff,
            kspace_cutoff=None,
            tails=description.tails,
        )
    )
    stored.close()
    index, _ = read_index(task.path)
    add_features(index, structures, features, derivatives=derivatives)


def _elements(sets: Mapping[str, StoredConfigurations]) -> tuple[int, ...]:
    """Atomic numbers of the structures to train on and to validate with, as training takes them."""
    train = sets["train"].catalogue
    used = [train.take(np.flatnonzero(~train.isolated_atoms()))]
    used += [sets[split].catalogue for split in ("valid",) if split in sets]
    return tuple(sorted({z for catalogue in used for z in catalogue.occurring_elements()}))


def _check_species(sets: Mapping[str, StoredConfigurations], features: AtomFeatures) -> None:
    """Refuse elements without features."""
    found = {z for each in sets.values() for z in each.catalogue.occurring_elements()}
    unknown = [chemical_symbols[z] for z in sorted(found - set(features.elements))]
    if unknown:
        raise DataError(
            f"features: expected all elements of the files among the species of the descriptor "
            f"({', '.join(chemical_symbols[z] for z in features.elements)}), found "
            f"{', '.join(unknown)}, which is in test structures or isolated atoms only; add it to "
            "`species`"
        )


def _report(sets: Mapping[str, StoredConfigurations]) -> None:
    """Log what was written."""
    logger.info(label_table({split: members.catalogue for split, members in sets.items()}))
    for split, members in sets.items():
        sizes = members.sizes
        logger.info(
            "%s set: %d structures with %d atoms, %d edges and %d reciprocal vectors",
            split,
            len(sizes),
            sizes.atoms.sum(),
            sizes.edges.sum(),
            sizes.kvectors.sum(),
        )
        if members.num_features:
            logger.info("%s set: %s", split, _features_in_words(members))


def _features_in_words(members: StoredConfigurations) -> str:
    """How many features there are, and how large they are."""
    number, atoms = members.num_features, members.sizes.atoms.sum()
    words = f"{number} features of each atom, {8e-6 * number * atoms:.3g} MB"
    if members.pairs is None:
        return words + ", without derivatives"
    pairs = members.pairs.edges.sum()
    size = 24e-6 * number * (pairs + 3 * atoms)
    return words + f", and their derivatives for {pairs} pairs of atoms, {size:.3g} MB"
