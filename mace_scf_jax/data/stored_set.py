"""Preprocessed data sets: many shards as one set of configurations that need not fit in memory."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mace_scf_jax.boundary import is_slab, pbc_letters
from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.cells import CellRule
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES, zero_value
from mace_scf_jax.data.reading import PREPROCESSED
from mace_scf_jax.data.sets import ConfigurationSet, StructureSet
from mace_scf_jax.data.shard import AGAIN, OpenShard, ShardIndex, read_index
from mace_scf_jax.data.shard_tables import Columns, Rows, to_stack
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack, objects
from mace_scf_jax.data.structure import NO_KVECTORS, species_of

_OPEN_FILES = 128
KEPT_BYTES = 64_000_000
"""A set that takes less memory than this is read once and kept, whatever its batches are."""


def open_stored(
    path: str | Path, *, split: str, config_type_weights: Mapping[str, float] | None = None
) -> StoredConfigurations:
    """The data set in a folder or a single shard; only the indices are read.

    Args:
        path: a shard; a folder of shards; or what `mace-scf-jax preprocess` wrote, of which the
            folder of the split is taken.
        split: train, valid or test.
        config_type_weights: factor on the weight of a configuration by its `config_type`.

    Raises:
        DataError: if shards are missing, damaged, of another version or of different data sets.
    """
    opened = [read_index(file) for file in _shard_files(Path(path), split)]
    indices = [index for index, _ in opened]
    _check_complete(indices, Path(path))
    catalogue = Catalogue.concatenate([part for _, part in opened])
    factors = [(config_type_weights or {}).get(name, 1.0) for name in catalogue.config_type]
    return StoredConfigurations(
        _Shards(indices),
        catalogue.weighted(np.array(factors)),
        StructureSizes.concatenate([index.sizes for index in indices]),
        rows=np.arange(len(catalogue)),
        file=str(path),
    )


class StoredConfigurations(ConfigurationSet):
    """Configurations in shards, read when they are asked for.

    Args:
        rows: positions of the members of this set in the shards, counted through all of them;
            catalogue and sizes are those of the members.
    """

    def __init__(
        self,
        shards: _Shards,
        catalogue: Catalogue,
        sizes: StructureSizes,
        *,
        rows: np.ndarray,
        file: str,
    ):
        self.catalogue = catalogue
        self._shards = shards
        self.sizes = sizes
        self._rows = rows
        self._file = file
        weights = catalogue.weights
        # Sets that were stored before a property was there lack it.
        known = [name for name in BATCH_PROPERTIES if name in weights]
        self._weights = {name: weights[name] for name in known if weights[name].any()}

    @property
    def description(self) -> Description:
        """What the data were prepared for."""
        return self._shards.description

    def __getitem__(self, index: int) -> Configuration:
        """The configuration at a position, read from its shard; missing values are read-only."""
        return self.configuration(index, self.stack(np.array([index])))

    def take(self, rows: Sequence[int] | np.ndarray) -> StoredConfigurations:
        """The set of some of the configurations; see `ConfigurationSet.take`."""
        rows = np.asarray(rows, dtype=np.int64)
        return StoredConfigurations(
            self._shards,
            self.catalogue.take(rows),
            self.sizes.take(rows),
            rows=self._rows[rows],
            file=self._file,
        )

    def prepare(
        self,
        *,
        elements: Sequence[int],
        cutoff: float,
        kspace_cutoff: float | None,
        tails: float | None = None,
    ) -> StructureSet:
        """The stored structures, if they fit; see `ConfigurationSet.prepare`."""
        self.description.check_cutoffs(cutoff, kspace_cutoff, file=self._file)
        self._check_elements(elements)
        repeat = self._repeats(tails)
        with_kvectors = ~np.isinf(repeat) & (kspace_cutoff is not None)
        sizes = dataclasses.replace(
            self.sizes, repeat=repeat, kvectors=np.where(with_kvectors, self.sizes.kvectors, 0)
        )
        return StoredStructures(self, sizes, elements)

    def stack(self, rows: np.ndarray) -> Stack:
        """What is stored of configurations, given by their positions; see `to_stack`."""
        kinds = self._shards.kinds_of(self._rows[rows])
        different = np.unique(kinds).tolist()
        if len(different) == 1:
            return self._stack(rows, different[0])
        parts = Stack.concatenate(self._stack(rows[kinds == kind], kind) for kind in different)
        return parts.take(np.argsort(np.argsort(kinds, kind="stable"), kind="stable"))

    def _stack(self, rows: np.ndarray, kind: int) -> Stack:
        """Configurations in shards of one kind."""
        catalogue = self.catalogue
        return to_stack(
            self._shards.read(self._rows[rows]),
            self._shards.columns[kind],
            num_atoms=self.sizes.atoms[rows],
            num_edges=self.sizes.edges[rows],
            multipoles_max_l=self.description.multipoles_max_l,
            cell=catalogue.cell[rows],
            pbc=catalogue.pbc[rows],
            config_weight=catalogue.config_weight[rows],
            repeat=self.sizes.repeat[rows],
            weights={name: weights[rows] for name, weights in self._weights.items()},
        )

    def configuration(self, index: int, stacked: Stack) -> Configuration:
        """The configuration at a position, of which the stack tells what is stored."""
        catalogue = self.catalogue
        num_atoms = stacked.atoms.total
        values = {}
        for name in NUMERIC_PROPERTIES:
            found = stacked.property(name)
            if found is None:
                values[name] = _no_value(name, num_atoms, stacked.multipoles_max_l)
            else:
                values[name] = found if PROPERTIES[name].per_atom else found[0, ...]
        return Configuration(
            atomic_numbers=stacked.atoms["atomic_numbers"],
            positions=stacked.atoms["positions"],
            cell=catalogue.cell[index],
            pbc=catalogue.pbc[index],
            values=values,
            weights={name: np.asarray(rows[index]) for name, rows in catalogue.weights.items()},
            present=frozenset(name for name, rows in catalogue.present.items() if rows[index]),
            config_weight=float(catalogue.config_weight[index]),
            config_type=catalogue.config_type[index],
            location=catalogue.location(index),
            cell_rule=CellRule(catalogue.cell_rule[index]),
        )

    def num_columns(self) -> int:
        """Numbers that are stored of a structure and an atom, in all shards together."""
        widths: dict[str, int] = {}
        for columns in self._shards.columns:
            for table in columns.values():
                widths.update(table)
        return sum(widths.values())

    def _repeats(self, tails: float | None) -> np.ndarray:
        """`StructureSizes.repeat` in the boundary condition of a run, in which tails are so long.

        Fully periodic structures are the same in each, and open ones have no reciprocal vectors in
        the boundary condition ``exact``.
        """
        stored, pbc = self.description.tails, self.catalogue.pbc
        if stored == tails:
            return self.sizes.repeat
        different = is_slab(pbc) if stored is None else ~pbc.all(axis=1)
        if different.any():
            row = int(np.argmax(different))
            raise DataError(
                f"{self._file}: {self.catalogue.location(row)} has pbc {pbc_letters(pbc[row])} and "
                f"was preprocessed for {_boundary(stored)}, the run asks for {_boundary(tails)}. "
                "Preprocess again with the options of the run, or change those"
            )
        return np.where(pbc.any(axis=1) | (tails is None), 0.0, np.inf)

    def _check_elements(self, elements: Sequence[int]) -> None:
        """Refuse configurations with elements that the model does not know."""
        catalogue = self.catalogue
        unknown = catalogue.counts_of(elements).sum(axis=1) != catalogue.num_atoms
        if unknown.any():
            row = int(np.argmax(unknown))
            numbers = [z for z, counts in catalogue.element_counts.items() if counts[row]]
            try:
                species_of(np.array(sorted(numbers)), elements)
            except DataError as error:
                raise DataError(f"{catalogue.location(row)}: {error}") from None


class StoredStructures(StructureSet):
    """Structures in shards, read when they are asked for; those of small sets are kept.

    Sizes are those for the model, which may need fewer reciprocal vectors than are stored. Elements
    are those that the model knows, ascending.
    """

    def __init__(
        self, configurations: StoredConfigurations, sizes: StructureSizes, elements: Sequence[int]
    ):
        self._stored = configurations
        self.sizes = sizes
        numbers = np.asarray(elements)
        self._species = np.zeros(numbers.max() + 1, dtype=np.int32)
        self._species[numbers] = species_of(numbers, elements)

    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures; see `StructureSet.stack`."""
        return self._read(rows) if self._kept is None else self._kept.take(rows)

    @functools.cached_property
    def _kept(self) -> Stack | None:
        """All structures, if they are few."""
        if self._num_bytes() >= KEPT_BYTES:
            return None
        starts = range(STACKED_AT_ONCE, len(self), STACKED_AT_ONCE)
        return Stack.concatenate(
            self._read(rows) for rows in np.split(np.arange(len(self)), starts)
        )

    def _num_bytes(self) -> int:
        """Memory that all structures take at most, without what is known of sets of any size."""
        numbers, sizes = self._stored.num_columns(), self.sizes
        per_structure = 8 * numbers * sizes.atoms + 20 * sizes.edges + 12 * sizes.kvectors
        return int(per_structure.sum())

    def _read(self, rows: np.ndarray) -> Stack:
        stacked = self._stored.stack(rows)
        stacked = stacked.with_atoms(species=self._species[stacked.atoms["atomic_numbers"]])
        sizes = self.sizes.take(rows)
        k_indices = zip(stacked.k_indices, sizes.kvectors > 0, strict=True)
        return dataclasses.replace(
            stacked,
            repeat=sizes.repeat,
            k_indices=objects([found if used else NO_KVECTORS for found, used in k_indices]),
        )

    def _configuration(self, index: int, stacked: Stack) -> Configuration:
        return self._stored.configuration(index, stacked)


@functools.lru_cache(maxsize=1024)
def _no_value(name: str, num_atoms: int, multipoles_max_l: int) -> np.ndarray:
    """What stands for a missing property of structures of one size: a view of a single number."""
    like = zero_value(PROPERTIES[name], num_atoms=num_atoms, multipoles_max_l=multipoles_max_l)
    return np.broadcast_to(np.asarray(PROPERTIES[name].missing, like.dtype), like.shape)


def _boundary(tails: float | None) -> str:
    """A boundary condition in words."""
    if tails is None:
        return "another boundary condition than exact"
    return f"the boundary condition exact with Gaussians that reach {tails:g} Å"


class _Shards:
    """The shards of a data set, of which a limited number is open at any time."""

    def __init__(self, indices: Sequence[ShardIndex]):
        self._indices = tuple(indices)
        counts = np.array([len(index.sizes) for index in indices])
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        ordered = [json.dumps(index.columns) for index in indices]
        kinds = list(dict.fromkeys(ordered))
        self.columns: list[Columns] = [json.loads(kind) for kind in kinds]
        """Columns of the tables of each kind of shards: those of a kind have the same, in order."""
        self._kinds = np.array([kinds.index(each) for each in ordered])
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> Description:
        """What the data were prepared for."""
        return self._indices[0].description

    def kinds_of(self, rows: np.ndarray) -> np.ndarray:
        """The kind of the shard of each structure, given by positions through all shards."""
        return self._kinds[np.searchsorted(self._ends, rows, side="right")]

    def read(self, rows: np.ndarray) -> list[Rows]:
        """What is stored of some structures, given by positions through all shards."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        places = rows - self._starts[numbers]
        with self._lock:
            return [
                self._opened(number).read(place)
                for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
            ]

    def _opened(self, number: int) -> OpenShard:
        """A shard; the one that was not needed for longest is closed where there are too many."""
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[number] = OpenShard(self._indices[number])
        self._open.move_to_end(number)
        return self._open[number]


def _shard_files(path: Path, split: str) -> list[Path]:
    """The shards that a path stands for, in order."""
    if not path.is_dir():
        return [path]
    folder = path / split if (path / split).is_dir() else path
    files = sorted(folder.glob(f"*{PREPROCESSED}"))
    if not files:
        raise DataError(
            f"{path}: found neither {PREPROCESSED} files nor a folder {split!r} with some"
        )
    return files


def _check_complete(indices: Sequence[ShardIndex], path: Path) -> None:
    """Refuse shards of different data sets, and a folder that lacks some."""
    first = indices[0]
    for index in indices[1:]:
        if index.description != first.description or index.shards != first.shards:
            raise DataError(
                f"{path}: found shards of different data sets ({first.path.name} and "
                f"{index.path.name}); {AGAIN}"
            )
    missing = sorted(set(range(first.shards)) - {index.number for index in indices})
    if path.is_dir() and (missing or len(indices) != first.shards):
        raise DataError(
            f"{path}: found {len(indices)} of {first.shards} shards"
            + (f", missing number {', '.join(map(str, missing))}" if missing else "")
            + f"; {AGAIN}"
        )
