"""Structures one after the other in common arrays, from which batches are made.

A batch is some tens of arrays. Put together structure by structure and property by property it
costs hundreds of small steps in Python; from arrays that hold all structures it costs one selection
of rows for each.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.data.table import Ragged, Table

DESCRIPTORS = "descriptors"
CELL_DERIVATIVES = "descriptors_by_cell"
"""Columns of atoms as of `mace_scf_jax.graph.StoredDescriptors`, where they are known."""
PAIR_DERIVATIVES = "descriptors_by_vector"
"""Column of edges likewise; where it is, edges are pairs of atoms."""

STACKED_AT_ONCE = 256
"""Structures that are stacked at once where a whole set becomes one stack, part by part."""


@dataclasses.dataclass(frozen=True)
class Stack(Table):
    """Structures one after the other; for the meaning of the arrays see `Structure`."""

    cell: Float[np.ndarray, "structures 3 3"]
    pbc: Bool[np.ndarray, "structures 3"]
    config_weight: Float[np.ndarray, "structures"]
    atoms: Ragged
    """``positions``, ``species``, and properties of atoms by canonical name."""
    edges: Ragged
    """``senders`` and ``receivers``, counted within their structure, and ``cell_shifts``."""
    k_indices: np.ndarray
    """Reciprocal indices [_, 3] of each structure, as objects, which many may share."""
    repeat: Float[np.ndarray, "structures"]
    values: Mapping[str, np.ndarray]
    """Properties of structures by canonical name. Of these as of atoms zero is left out."""
    weights: Mapping[str, np.ndarray]
    """Weights of all properties, [structures], for dipoles [structures, 3]; zero is left out."""
    multipoles_max_l: int
    """Highest order of reference multipoles, also where there are none."""
    head: Int[np.ndarray, "structures"] | None = None
    """Place of the level of theory among several; None where there is a single one."""

    @functools.cached_property
    def num_kvectors(self) -> Int[np.ndarray, "structures"]:
        """Number of reciprocal vectors of each structure."""
        return np.array([len(indices) for indices in self.k_indices], dtype=np.int64)

    def without_edges(self) -> Stack:
        """The same structures with no edges, and no derivatives by their vectors."""
        none = {name: column[:0] for name, column in self.edges.entries.items()}
        none.pop(PAIR_DERIVATIVES, None)
        atoms = dict(self.atoms.entries)
        atoms.pop(CELL_DERIVATIVES, None)
        return dataclasses.replace(
            self,
            edges=Ragged(np.zeros_like(self.edges.counts), none),
            atoms=Ragged(self.atoms.counts, atoms),
        )

    def with_atoms(self, **entries: np.ndarray) -> Stack:
        """The same structures with further or other columns of atoms."""
        return dataclasses.replace(self, atoms=self.atoms.replace(**entries))

    def property(self, name: str) -> np.ndarray | None:
        """The values of a property, [structures, ...] or [atoms, ...]; None where all are zero."""
        return (self.atoms.entries if PROPERTIES[name].per_atom else self.values).get(name)


def stack(structures: Sequence[Structure], properties: Sequence[str] = BATCH_PROPERTIES) -> Stack:
    """Put structures one after the other.

    Args:
        structures: at least one.
        properties: canonical names of those that are wanted; all that go into batches by default.

    Raises:
        DataError: if there are no structures.
    """
    if not structures:
        raise DataError("data set: found no structures")
    configurations = [entry.configuration for entry in structures]
    per_atom = [name for name in properties if PROPERTIES[name].per_atom]
    per_structure = [name for name in properties if not PROPERTIES[name].per_atom]
    components = configurations[0].values["atomic_multipoles"].shape[1]
    return Stack(
        cell=np.stack([entry.cell for entry in configurations]),
        pbc=np.stack([entry.pbc for entry in configurations]),
        config_weight=np.array([entry.config_weight for entry in configurations]),
        atoms=Ragged(
            np.array([entry.num_atoms for entry in structures]),
            {
                "positions": np.concatenate([entry.positions for entry in configurations]),
                "species": np.concatenate([entry.species for entry in structures]),
            }
            | _without_zeros(
                (name, np.concatenate([entry.values[name] for entry in configurations]))
                for name in per_atom
            ),
        ),
        edges=Ragged(
            np.array([entry.num_edges for entry in structures]),
            {
                name: np.concatenate([getattr(entry, name) for entry in structures])
                for name in ("senders", "receivers", "cell_shifts")
            },
        ),
        k_indices=objects([entry.k_indices for entry in structures]),
        repeat=np.array([entry.repeat for entry in structures]),
        values=_without_zeros(
            (name, np.stack([entry.values[name] for entry in configurations]))
            for name in per_structure
        ),
        weights=_without_zeros(
            (name, np.stack([entry.weights[name] for entry in configurations]))
            for name in properties
        ),
        multipoles_max_l=math.isqrt(components) - 1,
        head=None
        if configurations[0].head is None
        else np.array([entry.head for entry in configurations], dtype=np.int32),
    )


def objects(values: Iterable) -> np.ndarray:
    """Values of any kind as a column."""
    return np.fromiter(values, dtype=object)


def _without_zeros(columns: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns if column.any()}
