"""Structures as rows of the tables of a shard."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.properties import PROPERTIES, Property, Shape, zero_value
from mace_scf_jax.data.structure import Structure

Columns = Mapping[str, Mapping[str, int]]
"""For each table, how many columns each array has; the arrays stand side by side in this order."""

TABLES_WITH_COLUMNS = ("structures", "atoms", "atom_integers")
"""Tables that hold several arrays."""

_SHAPES: dict[Shape, tuple[int, ...]] = {
    Shape.SCALAR: (),
    Shape.VECTOR: (3,),
    Shape.MATRIX: (3, 3),
    Shape.STRESS: (3, 3),
    Shape.ATOM_SCALAR: (-1,),
    Shape.ATOM_INTEGER: (-1,),
}
"""Shape of arrays that are not a table themselves."""


class ShapedColumns(NamedTuple):
    """Columns of a table that hold an array, and its shape; None for that of the columns."""

    table: str
    name: str
    columns: slice
    shape: tuple[int, ...] | None


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

    def arrays(self, columns: Sequence[ShapedColumns]) -> dict[str, np.ndarray]:
        """Positions, atomic numbers and properties, each in the shape that configurations have.

        Args:
            columns: of the tables; see `with_shapes`.
        """
        arrays = {}
        for entry in columns:
            values = np.ascontiguousarray(getattr(self, entry.table)[:, entry.columns])
            arrays[entry.name] = values if entry.shape is None else values.reshape(entry.shape)
        return arrays


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
            zero = zero_value(entry, num_atoms=1, multipoles_max_l=multipoles_max_l)
            columns[_table_of(entry)][name] = zero.size
    return columns


def with_shapes(columns: Columns) -> list[ShapedColumns]:
    """Where every array is in the tables, and its shape.

    Args:
        columns: of the tables.
    """
    found = []
    for table in TABLES_WITH_COLUMNS:
        start = 0
        for name, width in columns[table].items():
            found.append(ShapedColumns(table, name, slice(start, start + width), _shape_of(name)))
            start += width
    return found


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


def _shape_of(name: str) -> tuple[int, ...] | None:
    """Shape in which configurations hold the columns of an array; None for that of the columns."""
    if name == "atomic_numbers":
        return (-1,)
    return None if name == "positions" else _SHAPES.get(PROPERTIES[name].shape)
