"""Adding features of atoms to a shard."""

from __future__ import annotations

import h5py
import numpy as np

from mace_scf_jax.data.atom_features import AtomFeatures
from mace_scf_jax.data.hdf5_columns import digest_of, write_group
from mace_scf_jax.data.pairs import number_of_pairs
from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.shard import ShardIndex, describe
from mace_scf_jax.data.shard_tables import (
    BY_CELL,
    BY_VECTOR,
    CHECKED_TOGETHER,
    FEATURES,
    PAIRS,
    VALUES,
    checksum_of,
    feature_parts_of,
    feature_tables,
)
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import Stack
from mace_scf_jax.files import flush

SIZES_OF_PAIRS = ("edges", "neighbours", "connected_atoms")


def add_features(
    index: ShardIndex, structures: StructureSet, features: AtomFeatures, *, derivatives: bool
) -> None:
    """Add features of its structures to a shard, and wait until they are on the disk.

    They are computed and written some at a time, so that they need not fit in memory.

    Args:
        index: of a shard without features.
        structures: all that are in the shard; not read from it, for it is being written to.
        features: what to compute.
        derivatives: whether to add derivatives, too.
    """
    description = index.description.with_features(features.to_dict(), derivatives=derivatives)
    sizes: list[StructureSizes] = []
    checksums: dict[str, list[int]] = {}
    with h5py.File(index.path, "r+", libver="v110") as file:
        for name, (rows, width, dtype) in _shapes(structures, features, derivatives).items():
            file.create_dataset(name, shape=(rows, width), dtype=dtype)
        written: dict[str, int] = {}
        for part in features.computed(structures, derivatives=derivatives, dtype=np.float64):
            tables = feature_tables(part)
            for name, values in tables.items():
                start = written.get(name, 0)
                written[name] = start + len(values)
                file[name][start : written[name]] = values
            sizes.append(StructureSizes.of(part))
            for name, found in _checksums(part, tables, sizes[-1]).items():
                checksums.setdefault(name, []).extend(found)
        pairs = StructureSizes.concatenate(sizes)
        places = {name: np.array(found, np.uint32) for name, found in checksums.items()}
        counted: dict[str, np.ndarray] = {}
        if derivatives:
            places["pairs"] = np.cumsum(pairs.edges) - pairs.edges
            counted = {name: getattr(pairs, name) for name in SIZES_OF_PAIRS}
        groups = {"sizes": counted, "places": places}
        for group, columns in groups.items():
            write_group(file[FEATURES].create_group(group), columns)
        file[FEATURES].attrs["digest"] = digest_of(groups)
        describe(file, description)
    flush(index.path)


def _shapes(
    structures: StructureSet, features: AtomFeatures, derivatives: bool
) -> dict[str, tuple[int, int, type]]:
    """Rows, columns and type of the numbers of each table."""
    atoms, size = int(structures.sizes.atoms.sum()), features.size
    shapes: dict[str, tuple[int, int, type]] = {VALUES: (atoms, size, np.float64)}
    if derivatives:
        pairs = number_of_pairs(structures)
        shapes |= {
            PAIRS: (pairs, 2, np.int32),
            BY_VECTOR: (pairs, 3 * size, np.float64),
            BY_CELL: (atoms, 9 * size, np.float64),
        }
    return shapes


def _checksums(
    part: Stack, tables: dict[str, np.ndarray], sizes: StructureSizes
) -> dict[str, list[int]]:
    """Checksums of the structures of a part, by the names of the checksums."""
    places = {"atoms": part.atoms.first}
    if PAIRS in tables:
        places["pairs"] = part.edges.first
    rows = [feature_parts_of(sizes, places, row) for row in range(len(part))]
    return {
        name: [checksum_of(tables[table][each[table]] for table in members) for each in rows]
        for name, members in CHECKED_TOGETHER.items()
        if all(table in tables for table in members)
    }
