"""Reading the structures of shards, and checking each when it is first read."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Sequence

import h5py
import numpy as np

from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.shard import AGAIN, ShardIndex, opened
from mace_scf_jax.data.shard_tables import (
    CHECKED_TOGETHER,
    TABLES,
    Columns,
    Rows,
    checksum_of,
    feature_parts_of,
    parts_of,
)

_OPEN_FILES = 128


class OpenShard:
    """A shard that is open for reading structures."""

    def __init__(self, index: ShardIndex):
        self._index = index
        self._file = opened(index.path)
        self._tables = {
            name: _FileTable(self._file[name])
            for tables in CHECKED_TOGETHER.values()
            for name in tables
            if name in self._file
        }
        self._is_whole = {name: np.zeros(len(index.sizes), dtype=bool) for name in CHECKED_TOGETHER}
        self._held_k_indices = weakref.WeakValueDictionary[int, np.ndarray]()
        self._latest_k_indices: np.ndarray | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, row: int, tables: Collection[str] = TABLES) -> Rows:
        """The rows of the structure at a position in the shard, checked the first time.

        Args:
            row: position of the structure.
            tables: which ones are wanted.

        Raises:
            DataError: if the file cannot be read or its content has changed.
        """
        index = self._index
        parts = parts_of(index.sizes, index.places, row)
        if index.num_features:
            pairs = index.sizes if index.pairs is None else index.pairs
            parts |= feature_parts_of(pairs, index.places, row)
        rows: dict[str, np.ndarray] = {}
        for checksum, members in CHECKED_TOGETHER.items():
            wanted = [name for name in members if name in tables]
            if not wanted:
                continue
            is_whole = self._is_whole[checksum]
            try:
                found = {
                    name: self._rows(name, parts[name])
                    for name in (wanted if is_whole[row] else members)
                }
            except OSError as error:
                raise DataError(
                    f"{index.path}: structure {row} cannot be read ({error}); {AGAIN}"
                ) from None
            if not is_whole[row] and checksum_of(found.values()) != index.places[checksum][row]:
                raise DataError(
                    f"{index.path}: damaged (structure {row} does not have the checksum it "
                    f"should); {AGAIN}"
                )
            is_whole[row] = True
            rows |= {name: found[name] for name in wanted}
        return rows

    def _rows(self, table: str, part: slice) -> np.ndarray:
        return self._k_indices(part) if table == "k_indices" else self._tables[table].rows(part)

    def _k_indices(self, part: slice) -> np.ndarray:
        """Reciprocal indices, which structures in equal cells share for as long as one is held."""
        indices = self._held_k_indices.get(part.start)
        if indices is None or len(indices) != part.stop - part.start:
            indices = self._tables["k_indices"].rows(part)
            self._held_k_indices[part.start] = indices
        self._latest_k_indices = indices  # held until others are wanted
        return indices


class OpenShards:
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

    @property
    def num_features(self) -> int:
        """Stored features of an atom; 0 where there are none."""
        return self._indices[0].num_features

    def kinds_of(self, rows: np.ndarray) -> np.ndarray:
        """The kind of the shard of each structure, given by positions through all shards."""
        return self._kinds[np.searchsorted(self._ends, rows, side="right")]

    def read(self, rows: np.ndarray, tables: Collection[str]) -> list[Rows]:
        """What is stored of some structures in tables, by positions through all shards."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        places = rows - self._starts[numbers]
        with self._lock:
            return [
                self._opened(number).read(place, tables)
                for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
            ]

    def close(self) -> None:
        """Close all files; they are opened again when something is read."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _opened(self, number: int) -> OpenShard:
        """A shard; the one that was not needed for longest is closed where there are too many."""
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[number] = OpenShard(self._indices[number])
        self._open.move_to_end(number)
        return self._open[number]


class _FileTable:
    """Rows of a dataset of an open file.

    Where they are contiguous in the file, as `write_shard` leaves them, they are read without going
    through HDF5, which takes ten times as long for so few. They are not mapped into memory: what
    was read once would count as memory of the process, and a file cut short would end it by a
    signal instead of an error that tells which structure is missing.
    """

    def __init__(self, dataset: h5py.Dataset):
        self._dataset, self._descriptor = dataset, dataset.file.id.get_vfd_handle()
        self._start = dataset.id.get_offset() if dataset.dtype.isnative else None
        self._dtype, self._width = dataset.dtype, dataset.shape[1]
        self._row_bytes = self._width * dataset.dtype.itemsize

    def rows(self, part: slice) -> np.ndarray:
        """Consecutive rows, read-only.

        Raises:
            OSError: they cannot be read.
        """
        if self._start is None:
            rows = self._dataset[part]
            rows.flags.writeable = False
            return rows
        wanted = (part.stop - part.start) * self._row_bytes
        offset = self._start + part.start * self._row_bytes
        found = os.pread(self._descriptor, wanted, offset)
        if len(found) != wanted:
            raise OSError(f"found {len(found)} of {wanted} bytes")
        return np.frombuffer(found, dtype=self._dtype).reshape(-1, self._width)
