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
from mace_scf_jax.data.stack import Stack, objects
from mace_scf_jax.data.table import Ragged

TABLES = ("structures", "atoms", "atom_integers", "edges", "k_indices")
TYPES = {"structures": np.float64, "atoms": np.float64, "atom_integers": np.int32}
"""Tables that hold several arrays side by side, and the type of their numbers."""

Columns = Mapping[str, Mapping[str, int]]
"""For each table of several arrays, how many columns each array has, in their order."""

Rows = tuple[np.ndarray, ...]
"""The rows of one structure in each table, in the order of `TABLES`."""


def to_stack(
    read: Sequence[Rows],
    columns: Columns,
    *,
    num_atoms: Int[np.ndarray, "structures"],
    num_edges: Int[np.ndarray, "structures"],
    multipoles_max_l: int,
    **known: Any,
) -> Stack:
    """Put rows of structures together; instead of ``species`` there are ``atomic_numbers``.

    Args:
        read: the rows of each structure, at least one.
        columns: of their tables.
        num_atoms: of each structure.
        num_edges: of each structure.
        multipoles_max_l: highest order of the multipoles.
        known: what a `Stack` holds that is in no table.
    """
    tables = dict(zip(TABLES, zip(*read, strict=True), strict=True))
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for table, widths in columns.items():
        values = np.concatenate(tables[table])
        ends = itertools.accumulate(widths.values())
        arrays[table] = {
            name: values[:, end - width : end].reshape(-1, *_row_shape(name, multipoles_max_l))
            for (name, width), end in zip(widths.items(), ends, strict=True)
        }
    edges = np.concatenate(tables["edges"])
    return Stack(
        atoms=Ragged(num_atoms, arrays["atoms"] | arrays["atom_integers"]),
        edges=Ragged(
            num_edges,
            {"senders": edges[:, 0], "receivers": edges[:, 1], "cell_shifts": edges[:, 2:]},
        ),
        k_indices=objects(tables["k_indices"]),
        values=arrays["structures"],
        multipoles_max_l=multipoles_max_l,
        **known,
    )


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


def parts_of(sizes: StructureSizes, places: Mapping[str, np.ndarray], row: int) -> dict[str, slice]:
    """The rows of a structure in each table, in the order of `TABLES`."""

    def part(first: np.ndarray, counts: np.ndarray) -> slice:
        return slice(start := int(first[row]), start + int(counts[row]))

    atoms = part(places["atoms"], sizes.atoms)
    return {
        "structures": slice(row, row + 1),
        "atoms": atoms,
        "atom_integers": atoms,
        "edges": part(places["edges"], sizes.edges),
        "k_indices": part(places["k_indices"], sizes.kvectors),
    }


def checksum_of(rows: Iterable[np.ndarray]) -> int:
    """CRC-32 of the rows of a structure."""
    value = 0
    for part in rows:
        value = zlib.crc32(np.ascontiguousarray(part), value)
    return value
