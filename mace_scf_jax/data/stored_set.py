"""Preprocessed data sets: many shards as one set of configurations that need not fit in memory."""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.cells import CellRule
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.configuration_set import ConfigurationSet
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES, zero_value
from mace_scf_jax.data.shard import AGAIN, SUFFIX, OpenShard, ShardIndex, read_index
from mace_scf_jax.data.shard_tables import (
    ColumnsOf,
    Rows,
    all_columns,
    arrays_of,
    columns_by_name,
)
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack, joined
from mace_scf_jax.data.structure import Structure, species_of
from mace_scf_jax.data.structure_set import StructureSet

_OPEN_FILES = 128
KEPT_BYTES = 64_000_000
"""A set that takes less memory than this is read once and kept, whatever its batches are."""

_NO_KVECTORS = np.empty((0, 3), dtype=np.int32)


def is_stored(path: str | Path) -> bool:
    """Whether a path means preprocessed data: a folder, or a file ending in .h5."""
    return Path(path).is_dir() or Path(path).suffix == SUFFIX


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
        shards: where they are.
        catalogue: of this set.
        sizes: of the structures of this set.
        rows: positions of the members of this set in the shards, counted through all of them.
        file: path, for messages.
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

    @property
    def description(self) -> Description:
        """What the data were prepared for."""
        return self._shards.description

    def __getitem__(self, index: int) -> Configuration:
        """The configuration at a position, read from its shard; missing values are read-only."""
        (stored,) = self.read([index])
        return self.configuration(index, stored)

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
        self, *, elements: Sequence[int], cutoff: float, kspace_cutoff: float | None
    ) -> StructureSet:
        """The stored structures, if they fit; see `ConfigurationSet.prepare`."""
        self.description.check_cutoffs(cutoff, kspace_cutoff, file=self._file)
        self._check_elements(elements)
        return StoredStructures(self, elements, with_kvectors=kspace_cutoff is not None)

    def read(self, rows: Sequence[int] | np.ndarray) -> list[Rows]:
        """What is stored of some of the configurations.

        Args:
            rows: their positions.
        """
        return self._shards.read(self._rows[rows])

    @property
    def arrays(self) -> list[ColumnsOf]:
        """Where each array is in what `read` gives."""
        return self._shards.arrays

    def configuration(self, index: int, stored: Rows) -> Configuration:
        """The configuration at a position.

        Args:
            index: the position.
            stored: what is stored of it.
        """
        arrays, catalogue = arrays_of([stored], self.arrays), self.catalogue
        missing = _zero_values(len(stored.atoms), self.description.multipoles_max_l)
        values = {
            name: missing[name]
            if name not in arrays
            else arrays[name]
            if PROPERTIES[name].per_atom
            else arrays[name][0, ...]
            for name in NUMERIC_PROPERTIES
        }
        return Configuration(
            atomic_numbers=arrays["atomic_numbers"],
            positions=arrays["positions"],
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

    def _check_elements(self, elements: Sequence[int]) -> None:
        """Refuse configurations with elements that the model does not know."""
        numbers = np.array(self.catalogue.elements)
        unknown = self.catalogue.element_counts[:, ~np.isin(numbers, elements)].any(axis=1)
        if unknown.any():
            row = int(np.argmax(unknown))
            try:
                species_of(numbers[self.catalogue.element_counts[row] > 0], elements)
            except DataError as error:
                raise DataError(f"{self.catalogue.location(row)}: {error}") from None


class StoredStructures(StructureSet):
    """Structures in shards, read when they are asked for; those of small sets are kept.

    Args:
        configurations: the set that they are stored with.
        elements: atomic numbers that the model knows, ascending.
        with_kvectors: whether the model needs reciprocal vectors.
    """

    def __init__(
        self, configurations: StoredConfigurations, elements: Sequence[int], *, with_kvectors: bool
    ):
        self._stored = configurations
        sizes = configurations.sizes
        self.sizes = sizes if with_kvectors else sizes.without_kvectors()
        self._with_kvectors = with_kvectors
        numbers = np.asarray(elements)
        self._species = np.zeros(numbers.max() + 1, dtype=np.int32)
        self._species[numbers] = species_of(numbers, elements)
        weights = configurations.catalogue.weights
        self._weights = {name: weights[name] for name in BATCH_PROPERTIES if weights[name].any()}

    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures; see `StructureSet.stack`."""
        return self._read(rows) if self._kept is None else self._kept.take(rows)

    @functools.cached_property
    def _kept(self) -> Stack | None:
        """All structures, if they are few."""
        if self._bytes() >= KEPT_BYTES:
            return None
        starts = range(STACKED_AT_ONCE, len(self), STACKED_AT_ONCE)
        return joined(self._read(rows) for rows in np.split(np.arange(len(self)), starts))

    def _bytes(self) -> int:
        """Memory that all structures take at most, without what is known of sets of any size."""
        numbers = sum(math.prod(entry.row_shape) for entry in self._stored.arrays)
        sizes = self.sizes
        per_structure = 8 * numbers * sizes.atoms + 20 * sizes.edges + 12 * sizes.kvectors
        return int(per_structure.sum())

    def _read(self, rows: np.ndarray) -> Stack:
        catalogue = self._stored.catalogue
        parts = self._stored.read(rows)
        arrays = arrays_of(parts, self._stored.arrays)
        edges = np.concatenate([part.edges for part in parts])
        return Stack(
            num_atoms=self.sizes.atoms[rows],
            num_edges=self.sizes.edges[rows],
            cell=catalogue.cell[rows],
            pbc=catalogue.pbc[rows],
            config_weight=catalogue.config_weight[rows],
            positions=arrays["positions"],
            species=self._species[arrays["atomic_numbers"]],
            senders=edges[:, 0],
            receivers=edges[:, 1],
            cell_shifts=edges[:, 2:],
            k_indices=[self._k_indices(part) for part in parts],
            values={name: arrays[name] for name in BATCH_PROPERTIES if name in arrays},
            weights={name: weights[rows] for name, weights in self._weights.items()},
            multipoles_max_l=self._stored.description.multipoles_max_l,
        )

    def _structure(self, index: int) -> Structure:
        (stored,) = self._stored.read([index])
        configuration = self._stored.configuration(index, stored)
        return Structure(
            configuration=configuration,
            species=self._species[configuration.atomic_numbers],
            senders=stored.edges[:, 0],
            receivers=stored.edges[:, 1],
            cell_shifts=stored.edges[:, 2:],
            k_indices=self._k_indices(stored),
        )

    def _k_indices(self, stored: Rows) -> np.ndarray:
        return stored.k_indices if self._with_kvectors else _NO_KVECTORS


@functools.lru_cache(maxsize=1024)
def _zero_values(num_atoms: int, multipoles_max_l: int) -> dict[str, np.ndarray]:
    """What stands for missing properties of structures of one size, as views of a single zero."""
    zeros = (
        zero_value(PROPERTIES[name], num_atoms=num_atoms, multipoles_max_l=multipoles_max_l)
        for name in NUMERIC_PROPERTIES
    )
    return {
        name: np.broadcast_to(np.zeros((), like.dtype), like.shape)
        for name, like in zip(NUMERIC_PROPERTIES, zeros, strict=True)
    }


class _Shards:
    """The shards of a data set, of which a limited number is open at any time.

    Args:
        indices: of all shards.
    """

    def __init__(self, indices: Sequence[ShardIndex]):
        self._indices = tuple(indices)
        self._columns = all_columns(index.columns for index in indices)
        counts = np.array([len(index.sizes) for index in indices])
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> Description:
        """What the data were prepared for."""
        return self._indices[0].description

    @functools.cached_property
    def arrays(self) -> list[ColumnsOf]:
        """Where each array is in what `read` gives."""
        return columns_by_name(self._columns, self.description.multipoles_max_l)

    def read(self, rows: np.ndarray) -> list[Rows]:
        """What is stored of some structures.

        Args:
            rows: their positions, counted through all shards.
        """
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
            self._open[number] = OpenShard(self._indices[number], self._columns)
        self._open.move_to_end(number)
        return self._open[number]


def _shard_files(path: Path, split: str) -> list[Path]:
    """The shards that a path stands for, in order."""
    if not path.is_dir():
        return [path]
    folder = path / split if (path / split).is_dir() else path
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise DataError(f"{path}: found neither {SUFFIX} files nor a folder {split!r} with some")
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
