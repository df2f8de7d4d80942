"""Preprocessed data sets: many shards as one set of configurations that need not fit in memory."""

from __future__ import annotations

import functools
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
from mace_scf_jax.data.properties import PROPERTIES, zero_value
from mace_scf_jax.data.shard import AGAIN, SUFFIX, OpenShard, Rows, ShardIndex, read_index
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.structure import Structure, species_of
from mace_scf_jax.data.structure_set import StructureSet

_OPEN_FILES = 128


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
        return self._read(index)[0]

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
        numbers = np.asarray(elements)
        species = np.zeros(numbers.max() + 1, dtype=np.int32)
        species[numbers] = species_of(numbers, elements)
        sizes = self.sizes if kspace_cutoff is not None else self.sizes.without_kvectors()

        def structure(index: int) -> Structure:
            configuration, rows = self._read(index)
            k_indices = rows.k_indices if kspace_cutoff is not None else rows.k_indices[:0]
            return Structure(
                configuration=configuration,
                species=species[configuration.atomic_numbers],
                senders=rows.edges[:, 0],
                receivers=rows.edges[:, 1],
                cell_shifts=rows.edges[:, 2:],
                k_indices=k_indices,
            )

        return StructureSet(structure, sizes)

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

    def _read(self, index: int) -> tuple[Configuration, Rows]:
        """A configuration and the rows that its structure was stored in."""
        rows, arrays = self._shards.read(int(self._rows[index]))
        catalogue = self.catalogue
        missing = _zero_values(int(catalogue.num_atoms[index]), self.description.multipoles_max_l)
        configuration = Configuration(
            atomic_numbers=arrays["atomic_numbers"],
            positions=arrays["positions"],
            cell=catalogue.cell[index],
            pbc=catalogue.pbc[index],
            values={name: arrays.get(name, missing[name]) for name in NUMERIC_PROPERTIES},
            weights={name: np.asarray(rows[index]) for name, rows in catalogue.weights.items()},
            present=frozenset(name for name, rows in catalogue.present.items() if rows[index]),
            config_weight=float(catalogue.config_weight[index]),
            config_type=catalogue.config_type[index],
            location=catalogue.location(index),
            cell_rule=CellRule(catalogue.cell_rule[index]),
        )
        return configuration, rows


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
        self._ends = np.cumsum([len(index.sizes) for index in indices])
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> Description:
        """What the data were prepared for."""
        return self._indices[0].description

    def read(self, row: int) -> tuple[Rows, dict[str, np.ndarray]]:
        """What is stored of one structure.

        Args:
            row: position, counted through all shards.
        """
        number = int(np.searchsorted(self._ends, row, side="right"))
        first = self._ends[number] - len(self._indices[number].sizes)
        with self._lock:
            if number not in self._open:
                if len(self._open) >= _OPEN_FILES:
                    self._open.popitem(last=False)[1].close()
                self._open[number] = OpenShard(self._indices[number])
            self._open.move_to_end(number)
            return self._open[number].read(int(row - first))


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
