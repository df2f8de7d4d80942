"""Preprocessed data sets: many shards as one set of configurations that need not fit in memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.boundary import is_slab, pbc_letters
from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.cells import CellRule
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.open_shards import OpenShards
from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES, zero_value
from mace_scf_jax.data.reading import PREPROCESSED
from mace_scf_jax.data.sets import ConfigurationSet, StructureSet
from mace_scf_jax.data.shard import AGAIN, ShardIndex, read_index
from mace_scf_jax.data.shard_tables import DERIVATIVES, TABLES, VALUES, to_stack
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack, objects
from mace_scf_jax.data.structure import NO_KVECTORS, species_of

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
        OpenShards(indices),
        catalogue.weighted(np.array(factors)),
        StructureSizes.concatenate([index.sizes for index in indices]),
        pairs=None
        if any(index.pairs is None for index in indices)
        else StructureSizes.concatenate([index.pairs for index in indices]),
        rows=np.arange(len(catalogue)),
        file=str(path),
    )


class StoredConfigurations(ConfigurationSet):
    """Configurations in shards, read when they are asked for.

    Args:
        pairs: sizes with pairs of atoms for edges; None where these are not stored.
        rows: positions of the members of this set in the shards, counted through all of them;
            catalogue and sizes are those of the members.
    """

    def __init__(
        self,
        shards: OpenShards,
        catalogue: Catalogue,
        sizes: StructureSizes,
        *,
        pairs: StructureSizes | None,
        rows: np.ndarray,
        file: str,
    ):
        self.catalogue = catalogue
        self._shards = shards
        self.sizes = sizes
        self.pairs = pairs
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
            pairs=None if self.pairs is None else self.pairs.take(rows),
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
        features: Mapping[str, Any] | None = None,
    ) -> StructureSet:
        """The stored structures, if they fit; see `ConfigurationSet.prepare`."""
        self.description.check_model(cutoff, kspace_cutoff, features, file=self._file)
        self._check_elements(elements)
        repeat = self._repeats(tails)
        with_kvectors = ~np.isinf(repeat) & (kspace_cutoff is not None)
        sizes = dataclasses.replace(
            self.sizes, repeat=repeat, kvectors=np.where(with_kvectors, self.sizes.kvectors, 0)
        )
        return StoredStructures(self, sizes, elements, features_fit=features is not None)

    def close(self) -> None:
        """Close the files; they are opened again when something is read."""
        self._shards.close()

    def stack(self, rows: np.ndarray, tables: Collection[str] = TABLES) -> Stack:
        """What is stored of configurations, given by their positions.

        Args:
            rows: the positions.
            tables: what to read of it; see `to_stack`.
        """
        kinds = self._shards.kinds_of(self._rows[rows])
        different = np.unique(kinds).tolist()
        if len(different) == 1:
            return self._stack(rows, different[0], tables)
        parts = Stack.concatenate(
            self._stack(rows[kinds == kind], kind, tables) for kind in different
        )
        return parts.take(np.argsort(np.argsort(kinds, kind="stable"), kind="stable"))

    def _stack(self, rows: np.ndarray, kind: int, tables: Collection[str]) -> Stack:
        """Configurations in shards of one kind."""
        catalogue = self.catalogue
        return to_stack(
            self._shards.read(self._rows[rows], tables),
            self._shards.columns[kind],
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

    @property
    def num_features(self) -> int:
        """Stored features of an atom; 0 where there are none."""
        return self._shards.num_features

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

    Args:
        configurations: where they are.
        sizes: those for the model, which may need fewer reciprocal vectors than are stored.
        elements: those that the model knows, ascending.
        features_fit: whether stored features, if there are some, are those of the model.
        tables: what is read of each structure.
    """

    def __init__(
        self,
        configurations: StoredConfigurations,
        sizes: StructureSizes,
        elements: Sequence[int],
        *,
        features_fit: bool = False,
        tables: Collection[str] = TABLES,
    ):
        self._stored = configurations
        self.sizes = sizes
        self._elements = elements
        self._features_fit = features_fit
        self._tables = frozenset(tables)
        numbers = np.asarray(elements)
        self._species = np.zeros(numbers.max() + 1, dtype=np.int32)
        self._species[numbers] = species_of(numbers, elements)

    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures; see `StructureSet.stack`."""
        return self._read(rows) if self._kept is None else self._kept.take(rows)

    def without_edges(self) -> StoredStructures:
        """The same structures with no edges; see `StructureSet.without_edges`."""
        none = np.zeros_like(self.sizes.edges)
        sizes = dataclasses.replace(self.sizes, edges=none, neighbours=none, connected_atoms=none)
        return self._with(sizes, self._tables - {"edges", *DERIVATIVES})

    def with_stored_features(self, *, derivatives: bool) -> StoredStructures | None:
        """The same structures with features; see `StructureSet.with_stored_features`."""
        stored, pairs = self._stored, self._stored.pairs
        if not self._features_fit or stored.description.features is None:
            return None
        described = self.without_edges()
        if not derivatives:
            return described._with(described.sizes, described._tables | {VALUES})
        if pairs is None:
            return None
        sizes = dataclasses.replace(
            self.sizes,
            edges=pairs.edges,
            neighbours=pairs.neighbours,
            connected_atoms=pairs.connected_atoms,
        )
        return described._with(sizes, described._tables | {VALUES, *DERIVATIVES})

    def _with(self, sizes: StructureSizes, tables: Collection[str]) -> StoredStructures:
        return StoredStructures(
            self._stored, sizes, self._elements, features_fit=self._features_fit, tables=tables
        )

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
        features = self._stored.num_features
        if VALUES in self._tables:
            per_structure += 8 * features * sizes.atoms
        if not self._tables.isdisjoint(DERIVATIVES):
            per_structure += 24 * features * (sizes.edges + 3 * sizes.atoms)
        return int(per_structure.sum())

    def _read(self, rows: np.ndarray) -> Stack:
        stacked = self._stored.stack(rows, self._tables)
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
