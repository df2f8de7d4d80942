"""One HDF5 file of prepared structures: its format, writing and reading.

::

    attributes        format, format_version, description (JSON), shard, shards, digest
    catalogue/…       one dataset per member of the `Catalogue`
    sizes/…           one dataset per member of the `StructureSizes`
    places/…          checksum of each structure, and where its reciprocal indices start
    structures        [structures, columns] float64: properties of whole structures
    atoms             [atoms, columns] float64: positions and real properties of atoms
    atom_integers     [atoms, columns] int32: atomic numbers and integer properties of atoms
    edges             [edges, 5] int32: sender, receiver, cell shift
    k_indices         [k-vectors, 3] int32; structures in equal cells share theirs

Structures follow one another in every table, so a structure is four short contiguous reads. The
attribute ``columns`` of a dataset says how many columns belong to what. Properties that no
structure has are left out. The digest covers catalogue, sizes and places; the checksums cover the
rest, structure by structure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import PROPERTIES, Shape
from mace_scf_jax.data.shard_tables import (
    TABLES,
    TYPES,
    Columns,
    Rows,
    checksum_of,
    columns_of,
    parts_of,
    shared_indices,
    tables_of,
)
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import stack
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.files import flush

FORMAT = "mace-scf-jax structures"
FORMAT_VERSION = 1

AGAIN = "run `mace-scf-jax preprocess` again"


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """Where the structures of a shard are."""

    path: Path
    description: Description
    number: int
    shards: int
    sizes: StructureSizes
    places: Mapping[str, Int[np.ndarray, "structures"]]
    """First row of each structure in the tables ``atoms``, ``edges`` and ``k_indices``, and
    ``checksum``, the CRC-32 of its rows in all tables, one after the other."""
    columns: Columns
    """Columns of its tables."""


def write_shard(
    path: Path,
    structures: Sequence[Structure],
    description: Description,
    *,
    number: int = 0,
    shards: int = 1,
) -> None:
    """Write one shard, and wait until it is on the disk.

    Args:
        path: new file.
        structures: at least one.
        description: what they were prepared for.
        number: of this shard, from 0.
        shards: number of shards of the data set.

    Raises:
        DataError: if a structure has a property that this format does not hold.
    """
    catalogue = Catalogue.of([entry.configuration for entry in structures])
    _refuse_grids(catalogue)
    numbers = [entry.configuration.atomic_numbers for entry in structures]
    stacked = stack(structures).with_atoms(atomic_numbers=np.concatenate(numbers))
    sizes = StructureSizes.of(stacked)
    columns = columns_of(catalogue, description.multipoles_max_l)
    k_indices, k_starts = shared_indices(stacked.k_indices)
    tables = tables_of(stacked, columns) | {"k_indices": k_indices}
    places = {"atoms": stacked.atoms.first, "edges": stacked.edges.first, "k_indices": k_starts}
    places["checksum"] = np.array(
        [
            checksum_of([tables[name][part] for name, part in parts_of(sizes, places, row).items()])
            for row in range(len(structures))
        ],
        dtype=np.uint32,
    )
    groups = {"catalogue": _columns(catalogue), "sizes": vars(sizes), "places": places}
    with h5py.File(path, "w-", libver="v110") as file:
        for group, members in groups.items():
            _write_group(file.create_group(group), members)
        for name, values in tables.items():
            file[name] = values
            if name in columns:
                file[name].attrs["columns"] = json.dumps(columns[name])
        file.attrs.update(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            description=json.dumps(description.to_dict()),
            shard=number,
            shards=shards,
            digest=_digest(groups),
        )
    flush(path)


def read_index(path: Path) -> tuple[ShardIndex, Catalogue]:
    """Open a shard, check that it is whole and of this format, and read what it tells of itself.

    Returns:
        Where the structures are, and their catalogue.

    Raises:
        DataError: if it is not an HDF5 file of this format and version, or damaged.
    """
    with _opened(path) as file:
        try:
            groups = {group: _read_group(file[group]) for group in ("catalogue", "sizes", "places")}
            attributes = dict(file.attrs)
            digest = str(attributes["digest"])
            described = json.loads(attributes["description"])
            if any(name not in file for name in TABLES):
                raise KeyError("a table is missing")
            columns = {name: json.loads(file[name].attrs["columns"]) for name in TYPES}
        except (KeyError, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); {AGAIN}") from None
    if _digest(groups) != digest:
        raise DataError(f"{path}: damaged (its index does not have the digest it should); {AGAIN}")
    catalogue = _catalogue(groups["catalogue"])
    index = ShardIndex(
        path=path,
        description=Description.from_dict(described),
        number=int(attributes["shard"]),
        shards=int(attributes["shards"]),
        sizes=StructureSizes(**({"repeat": np.zeros(len(catalogue))} | groups["sizes"])),
        places=groups["places"],
        columns=columns,
    )
    return index, catalogue


class OpenShard:
    """A shard that is open for reading structures."""

    def __init__(self, index: ShardIndex):
        self._index = index
        self._file = _opened(index.path)
        self._tables = {name: _FileTable(self._file[name]) for name in TABLES}
        self._is_whole = np.zeros(len(index.sizes), dtype=bool)
        self._held_k_indices = weakref.WeakValueDictionary[int, np.ndarray]()
        self._latest_k_indices: np.ndarray | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, row: int) -> Rows:
        """The rows of the structure at a position in the shard, checked the first time.

        Raises:
            DataError: if the file cannot be read or its content has changed.
        """
        index = self._index
        *parts, k_part = parts_of(index.sizes, index.places, row).items()
        try:
            rows = (
                *(self._tables[name].rows(part) for name, part in parts),
                self._k_indices(k_part[1]),
            )
        except OSError as error:
            raise DataError(
                f"{index.path}: structure {row} cannot be read ({error}); {AGAIN}"
            ) from None
        if not self._is_whole[row] and checksum_of(rows) != index.places["checksum"][row]:
            raise DataError(
                f"{index.path}: damaged (structure {row} does not have the checksum it "
                f"should); {AGAIN}"
            )
        self._is_whole[row] = True
        return rows

    def _k_indices(self, part: slice) -> np.ndarray:
        """Reciprocal indices, which structures in equal cells share for as long as one is held."""
        indices = self._held_k_indices.get(part.start)
        if indices is None or len(indices) != part.stop - part.start:
            indices = self._tables["k_indices"].rows(part)
            self._held_k_indices[part.start] = indices
        self._latest_k_indices = indices  # held until others are wanted
        return indices


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


def _refuse_grids(catalogue: Catalogue) -> None:
    """Refuse properties on grids, of a size of their own in every structure."""
    for name, present in catalogue.present.items():
        if PROPERTIES[name].shape is Shape.GRID and present.any():
            raise DataError(
                f"{catalogue.location(int(np.argmax(present)))}: found {name}, which preprocessed "
                f"files do not hold; map `{name}: none`"
            )


def _columns(catalogue: Catalogue) -> dict[str, Any]:
    """Columns of a catalogue as a file holds them: the counts of all elements are one array."""
    elements = sorted(catalogue.element_counts)
    counts = catalogue.counts_of(elements)
    return vars(catalogue) | {"elements": np.array(elements), "element_counts": counts}


def _catalogue(columns: Mapping[str, Any]) -> Catalogue:
    """The catalogue of which `_columns` gave the columns."""
    counts = np.ascontiguousarray(columns["element_counts"].T)
    by_element = dict(zip(columns["elements"].tolist(), counts, strict=True))
    return Catalogue(
        **{name: column for name, column in columns.items() if name != "elements"}
        | {"element_counts": by_element}
    )


def _write_group(group: h5py.Group, columns: Mapping[str, Any]) -> None:
    """Write columns of a table, those of a mapping side by side in one dataset."""
    for name, column in columns.items():
        if isinstance(column, Mapping):
            parts = {key: values.reshape(len(values), -1) for key, values in column.items()}
            group[name] = np.concatenate(list(parts.values()), axis=1)
            widths = {key: part.shape[1] for key, part in parts.items()}
            group[name].attrs["columns"] = json.dumps(widths)
        else:
            dtype = h5py.string_dtype() if column.dtype == object else None
            group.create_dataset(name, data=column, dtype=dtype)


def _read_group(group: h5py.Group) -> dict[str, Any]:
    """The columns that `_write_group` wrote; equal texts are stored once."""
    found: dict[str, Any] = {}
    for name, item in group.items():
        if h5py.check_string_dtype(item.dtype) is not None:
            found[name] = np.fromiter(map(sys.intern, item.asstr()[()]), dtype=object)
        elif "columns" in item.attrs:
            values, start, found[name] = item[()], 0, {}
            for key, width in json.loads(item.attrs["columns"]).items():
                part = values[:, start : start + width]
                found[name][key] = np.ascontiguousarray(part[:, 0] if width == 1 else part)
                start += width
        else:
            found[name] = item[()]
    return found


def _digest(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 of the names and contents of all columns in some groups."""
    named: dict[str, np.ndarray] = {}
    for group, columns in groups.items():
        for name, column in columns.items():
            parts = column.items() if isinstance(column, Mapping) else [("", column)]
            named |= {f"{group}/{name}/{key}".rstrip("/"): values for key, values in parts}
    digest = hashlib.sha256()
    for name, values in sorted(named.items()):
        digest.update(name.encode())
        digest.update("\0".join(values).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()


def _opened(path: Path) -> h5py.File:
    """The open file, if it is HDF5 of this format and version.

    Raises:
        DataError: otherwise.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not readable as HDF5, perhaps cut short ({error}); {AGAIN}"
        ) from None
    found = file.attrs.get("format")
    version = file.attrs.get("format_version")
    if found == FORMAT and version == FORMAT_VERSION:
        return file
    file.close()
    if found != FORMAT:
        raise DataError(f"{path}: HDF5, but not written by `mace-scf-jax preprocess`")
    raise DataError(
        f"{path}: found format version {version}, expected {FORMAT_VERSION}, the one that this "
        f"version of mace-scf-jax reads; {AGAIN}"
    )
