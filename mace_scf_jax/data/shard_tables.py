"""Structures as rows of the tables of a shard."""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from mace_scf_jax.data.catalogue import NUMERIC_PROPERTIES, Catalogue
from mace_scf_jax.data.properties import PROPERTIES, Property, Shape, row_shape
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import (
    CELL_DERIVATIVES,
    DESCRIPTORS,
    PAIR_DERIVATIVES,
    Stack,
    objects,
)
from mace_scf_jax.data.table import Ragged

TABLES = ("structures", "atoms", "atom_integers", "edges", "k_indices")
TYPES = {"structures": np.float64, "atoms": np.float64, "atom_integers": np.int32}
"""Tables that hold several arrays side by side, and the type of their numbers."""

FEATURES = "features"
"""Group of a shard that holds features of atoms."""
VALUES = f"{FEATURES}/values"
PAIRS = f"{FEATURES}/pairs"
BY_VECTOR = f"{FEATURES}/by_vector"
BY_CELL = f"{FEATURES}/by_cell"
DERIVATIVES = (PAIRS, BY_VECTOR, BY_CELL)
CHECKED_TOGETHER = {
    "checksum": TABLES,
    "checksum_of_values": (VALUES,),
    "checksum_of_derivatives": DERIVATIVES,
}
"""Tables whose rows of a structure have one checksum, by its name."""

Columns = Mapping[str, Mapping[str, int]]
"""For each table of several arrays, how many columns each array has, in their order."""

Rows = Mapping[str, np.ndarray]
"""The rows of one structure in some tables, by the names of these."""


def to_stack(
    read: Sequence[Rows],
    columns: Columns,
    *,
    multipoles_max_l: int,
    **known: Any,
) -> Stack:
    """Put rows of structures together; instead of ``species`` there are ``atomic_numbers``.

    Args:
        read: the rows of each structure, at least one, all in the same tables: those of `TABLES`,
            of which that of edges may be left out; features; and their derivatives instead of
            edges.
        columns: of the tables of several arrays.
        multipoles_max_l: highest order of the multipoles.
        known: what a `Stack` holds that is in no table.
    """

    def together(table: str) -> np.ndarray:
        return np.concatenate([rows[table] for rows in read])

    def counts(table: str) -> np.ndarray:
        return np.array([len(rows[table]) for rows in read])

    arrays: dict[str, dict[str, np.ndarray]] = {}
    for table, widths in columns.items():
        values = together(table)
        ends = itertools.accumulate(widths.values())
        arrays[table] = {
            name: values[:, end - width : end].reshape(-1, *_row_shape(name, multipoles_max_l))
            for (name, width), end in zip(widths.items(), ends, strict=True)
        }
    atoms = arrays["atoms"] | arrays["atom_integers"]
    if VALUES in read[0]:
        atoms[DESCRIPTORS] = together(VALUES)
    if PAIRS in read[0]:
        size = atoms[DESCRIPTORS].shape[1]
        atoms[CELL_DERIVATIVES] = together(BY_CELL).reshape(-1, 3, 3, size)
        further = {PAIR_DERIVATIVES: together(BY_VECTOR).reshape(-1, 3, size)}
        edges = Ragged(counts(PAIRS), _edges(together(PAIRS)) | further)
    elif "edges" in read[0]:
        edges = Ragged(counts("edges"), _edges(together("edges")))
    else:
        edges = Ragged(np.zeros(len(read), np.int64), _edges(np.zeros((0, 5), np.int32)))
    return Stack(
        atoms=Ragged(counts("atoms"), atoms),
        edges=edges,
        k_indices=objects([rows["k_indices"] for rows in read]),
        values=arrays["structures"],
        multipoles_max_l=multipoles_max_l,
        **known,
    )


def _edges(table: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of a table of edges, or of pairs, which have no cell shifts."""
    shifts = table[:, 2:] if table.shape[1] == 5 else np.zeros((len(table), 3), table.dtype)
    return {"senders": table[:, 0], "receivers": table[:, 1], "cell_shifts": shifts}


def tables_of(stacked: Stack, columns: Columns) -> dict[str, np.ndarray]:
    """All tables but that of reciprocal indices, with zeros for what the stack leaves out."""
    arrays = {**stacked.values, **stacked.atoms.entries}
    tables = {}
    for table, widths in columns.items():
        rows = len(stacked) if table == "structures" else stacked.atoms.total
        parts = [np.empty((rows, 0))]
        for name, width in widths.items():
            values = arrays.get(name)
            parts.append(np.zeros((rows, width)) if values is None else values.reshape(rows, width))
        tables[table] = np.concatenate(parts, axis=1).astype(TYPES[table])
    edges = stacked.edges
    pairs = (edges["senders"][:, None], edges["receivers"][:, None], edges["cell_shifts"])
    return tables | {"edges": np.concatenate(pairs, axis=1).astype(np.int32)}


def columns_of(catalogue: Catalogue, multipoles_max_l: int) -> Columns:
    """Columns for the properties that at least one configuration has."""
    columns: dict[str, dict[str, int]] = {
        "structures": {},
        "atoms": {"positions": 3},
        "atom_integers": {"atomic_numbers": 1},
    }
    for name in NUMERIC_PROPERTIES:
        if catalogue.present[name].any():
            table = _table_of(PROPERTIES[name])
            columns[table][name] = math.prod(_row_shape(name, multipoles_max_l))
    return columns


def _table_of(entry: Property) -> str:
    """The table that holds a property."""
    if not entry.per_atom:
        return "structures"
    return "atom_integers" if entry.shape is Shape.ATOM_INTEGER else "atoms"


def _row_shape(name: str, multipoles_max_l: int) -> tuple[int, ...]:
    """Shape of the rows of an array: a property, positions or atomic numbers."""
    if name in PROPERTIES:
        return row_shape(PROPERTIES[name], multipoles_max_l=multipoles_max_l)
    return (3,) if name == "positions" else ()


def shared_indices(
    k_indices: np.ndarray,
) -> tuple[Int32[np.ndarray, "kvectors 3"], Int[np.ndarray, "structures"]]:
    """All different sets of reciprocal indices one after the other, and where each one starts."""
    pool, starts, length = [np.zeros((0, 3), dtype=np.int32)], [], 0
    known: dict[bytes, int] = {}
    for indices in k_indices:
        content = hashlib.sha256(np.ascontiguousarray(indices)).digest()
        if content not in known:
            known[content] = length
            pool.append(indices.astype(np.int32))
            length += len(indices)
        starts.append(known[content])
    return np.concatenate(pool), np.array(starts, dtype=np.int64)


def feature_tables(stacked: Stack) -> dict[str, np.ndarray]:
    """The tables of the features of structures and, where they are known, of derivatives."""
    atoms, edges = stacked.atoms.entries, stacked.edges.entries
    tables = {VALUES: atoms[DESCRIPTORS]}
    if PAIR_DERIVATIVES in edges:
        pairs = np.stack([edges["senders"], edges["receivers"]], axis=1).astype(np.int32)
        by_cell, by_vector = atoms[CELL_DERIVATIVES], edges[PAIR_DERIVATIVES]
        tables |= {
            PAIRS: pairs,
            BY_VECTOR: by_vector.reshape(len(by_vector), math.prod(by_vector.shape[1:])),
            BY_CELL: by_cell.reshape(len(by_cell), math.prod(by_cell.shape[1:])),
        }
    return tables


def parts_of(sizes: StructureSizes, places: Mapping[str, np.ndarray], row: int) -> dict[str, slice]:
    """The rows of a structure in each table, in the order of `TABLES`."""
    atoms = _part(places["atoms"], sizes.atoms, row)
    return {
        "structures": slice(row, row + 1),
        "atoms": atoms,
        "atom_integers": atoms,
        "edges": _part(places["edges"], sizes.edges, row),
        "k_indices": _part(places["k_indices"], sizes.kvectors, row),
    }


def feature_parts_of(
    pairs: StructureSizes, places: Mapping[str, np.ndarray], row: int
) -> dict[str, slice]:
    """The rows of a structure in the tables of features and derivatives.

    Args:
        pairs: sizes with pairs of atoms for edges; without derivatives these do not matter.
        places: first row of each structure in the tables ``atoms`` and ``pairs``.
        row: position of the structure.
    """
    atoms = _part(places["atoms"], pairs.atoms, row)
    if "pairs" not in places:
        return {VALUES: atoms}
    of_pairs = _part(places["pairs"], pairs.edges, row)
    return {VALUES: atoms, PAIRS: of_pairs, BY_VECTOR: of_pairs, BY_CELL: atoms}


def _part(first: np.ndarray, counts: np.ndarray, row: int) -> slice:
    return slice(start := int(first[row]), start + int(counts[row]))


def checksum_of(rows: Iterable[np.ndarray]) -> int:
    """CRC-32 of the rows of a structure."""
    value = 0
    for part in rows:
        value = zlib.crc32(np.ascontiguousarray(part), value)
    return value
