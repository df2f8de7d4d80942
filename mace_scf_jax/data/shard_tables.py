"""Structures as rows of the tables of a shard."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.properties import PROPERTIES, Property, Shape, row_shape
from mace_scf_jax.data.structure import Structure

Columns = Mapping[str, Mapping[str, int]]
"""For each table, how many columns each array has; the arrays stand side by side in this order."""

TABLES_WITH_COLUMNS = ("structures", "atoms", "atom_integers")
"""Tables that hold several arrays."""

_ATOM_ARRAYS: dict[str, tuple[int, ...]] = {"positions": (3,), "atomic_numbers": ()}
"""Arrays that are no properties, and the shape of their rows."""


class ColumnsOf(NamedTuple):
    """Where an array is in the tables, and the shape of its rows."""

    name: str
    table: str
    columns: slice
    row_shape: tuple[int, ...]


class Spread(NamedTuple):
    """Where the columns of a table belong in a wider one."""

    places: Int[np.ndarray, "columns"]
    width: int


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one structure in each table."""

    structures: Float[np.ndarray, "1 columns"]
    atoms: Float[np.ndarray, "atoms columns"]
    atom_integers: Int32[np.ndarray, "atoms columns"]
    edges: Int32[np.ndarray, "edges 5"]
    k_indices: Int32[np.ndarray, "kvectors 3"]

    def checksum(self) -> int:
        """CRC-32 of all rows."""
        value = 0
        for field in dataclasses.fields(self):
            value = zlib.crc32(np.ascontiguousarray(getattr(self, field.name)), value)
        return value

    def spread(self, spreads: Mapping[str, Spread]) -> Rows:
        """The same rows in wider tables, zero in the columns that they lack.

        Args:
            spreads: of the tables that are wider; see `spreads_between`.
        """
        wider = {}
        for table, spread in spreads.items():
            rows = getattr(self, table)
            wider[table] = np.zeros((len(rows), spread.width), dtype=rows.dtype)
            wider[table][:, spread.places] = rows
        return dataclasses.replace(self, **wider) if wider else self


def columns_of(catalogue: Catalogue, multipoles_max_l: int) -> Columns:
    """Columns for the properties that at least one configuration has.

    Args:
        catalogue: of the configurations.
        multipoles_max_l: highest order of their multipoles.
    """
    columns: dict[str, dict[str, int]] = {
        "structures": {},
        "atoms": {"positions": 3},
        "atom_integers": {"atomic_numbers": 1},
    }
    for name in NUMERIC_PROPERTIES:
        if catalogue.present[name].any():
            entry = PROPERTIES[name]
            row = row_shape(entry, multipoles_max_l=multipoles_max_l)
            columns[_table_of(entry)][name] = math.prod(row)
    return columns


def all_columns(parts: Iterable[Columns]) -> Columns:
    """Columns of tables that hold every array of several.

    Args:
        parts: columns of each.
    """
    columns: dict[str, dict[str, int]] = {table: {} for table in TABLES_WITH_COLUMNS}
    for part in parts:
        for table in TABLES_WITH_COLUMNS:
            columns[table].update(part[table])
    return columns


def spreads_between(narrow: Columns, wide: Columns) -> dict[str, Spread]:
    """Where the columns of tables belong in wider ones, for those that are wider.

    Args:
        narrow: columns of the tables.
        wide: columns that hold all of them.
    """
    spreads = {}
    for table in TABLES_WITH_COLUMNS:
        if list(narrow[table].items()) != list(wide[table].items()):
            slices = _slices(wide[table])
            places = [np.arange(slices[name].start, slices[name].stop) for name in narrow[table]]
            spreads[table] = Spread(
                np.concatenate([np.empty(0, dtype=np.int64), *places]), sum(wide[table].values())
            )
    return spreads


def columns_by_name(columns: Columns, multipoles_max_l: int) -> list[ColumnsOf]:
    """Where every array is in the tables, and the shape of its rows.

    Args:
        columns: of the tables.
        multipoles_max_l: highest order of the multipoles.
    """
    return [
        ColumnsOf(name, table, part, _row_shape(name, multipoles_max_l))
        for table in TABLES_WITH_COLUMNS
        for name, part in _slices(columns[table]).items()
    ]


def arrays_of(parts: Sequence[Rows], columns: Sequence[ColumnsOf]) -> dict[str, np.ndarray]:
    """Positions, atomic numbers and properties of structures one after the other.

    Args:
        parts: rows of each structure, at least one.
        columns: of the tables; see `columns_by_name`.

    Returns:
        Arrays [structures, ...] or [atoms, ...] by name, which share memory.
    """
    tables = {
        table: np.concatenate([getattr(part, table) for part in parts])
        for table in TABLES_WITH_COLUMNS
    }
    return {
        entry.name: tables[entry.table][:, entry.columns].reshape(-1, *entry.row_shape)
        for entry in columns
    }


def to_rows(structure: Structure, columns: Columns) -> Rows:
    """A structure as rows of the tables.

    Args:
        structure: the structure.
        columns: of the tables.
    """
    configuration = structure.configuration
    arrays = {
        **configuration.values,
        "positions": configuration.positions,
        "atomic_numbers": configuration.atomic_numbers,
    }

    def table(name: str, rows: int, dtype: Any) -> np.ndarray:
        parts = [arrays[column].reshape(rows, -1) for column in columns[name]]
        return np.concatenate([np.empty((rows, 0), dtype=dtype), *parts], axis=1).astype(dtype)

    edges = (structure.senders[:, None], structure.receivers[:, None], structure.cell_shifts)
    return Rows(
        structures=table("structures", 1, np.float64),
        atoms=table("atoms", structure.num_atoms, np.float64),
        atom_integers=table("atom_integers", structure.num_atoms, np.int32),
        edges=np.concatenate(edges, axis=1).astype(np.int32),
        k_indices=structure.k_indices.astype(np.int32),
    )


def shared_indices(
    structures: Sequence[Structure],
) -> tuple[Int32[np.ndarray, "kvectors 3"], Int[np.ndarray, "structures"]]:
    """All different sets of reciprocal indices one after the other, and where each one starts.

    Args:
        structures: any number.

    Returns:
        The indices, and the first row of those of each structure.
    """
    pool, starts, length = [np.zeros((0, 3), dtype=np.int32)], [], 0
    known: dict[bytes, int] = {}
    for entry in structures:
        content = hashlib.sha256(np.ascontiguousarray(entry.k_indices)).digest()
        if content not in known:
            known[content] = length
            pool.append(entry.k_indices)
            length += entry.num_kvectors
        starts.append(known[content])
    return np.concatenate(pool), np.array(starts, dtype=np.int64)


def _table_of(entry: Property) -> str:
    """The table that holds a property."""
    if not entry.per_atom:
        return "structures"
    return "atom_integers" if entry.shape is Shape.ATOM_INTEGER else "atoms"


def _row_shape(name: str, multipoles_max_l: int) -> tuple[int, ...]:
    """Shape of the rows of an array."""
    if name in _ATOM_ARRAYS:
        return _ATOM_ARRAYS[name]
    return row_shape(PROPERTIES[name], multipoles_max_l=multipoles_max_l)


def _slices(widths: Mapping[str, int]) -> dict[str, slice]:
    """Columns of each array of a table."""
    ends = itertools.accumulate(widths.values())
    return {
        name: slice(end - width, end)
        for (name, width), end in zip(widths.items(), ends, strict=True)
    }
