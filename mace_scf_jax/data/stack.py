"""Structures one after the other in common arrays, from which batches are made.

A batch is some tens of arrays. Put together structure by structure and property by property it
costs hundreds of small steps in Python; from arrays that hold all structures it costs one selection
of rows for each.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES
from mace_scf_jax.data.sizes import BatchSizes, Layout, check_layout, sizes_that_hold
from mace_scf_jax.data.structure import Structure

STACKED_AT_ONCE = 256
"""Structures that are stacked at once where a whole set becomes one stack, part by part."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """Structures one after the other; for the meaning of the arrays see `Structure`."""

    num_atoms: Int[np.ndarray, "structures"]
    num_edges: Int[np.ndarray, "structures"]
    cell: Float[np.ndarray, "structures 3 3"]
    pbc: Bool[np.ndarray, "structures 3"]
    config_weight: Float[np.ndarray, "structures"]
    positions: Float[np.ndarray, "atoms 3"]
    species: Int[np.ndarray, "atoms"]
    senders: Int[np.ndarray, "edges"]
    """Sending atoms, counted within their structure."""
    receivers: Int[np.ndarray, "edges"]
    """Receiving atoms, counted within their structure."""
    cell_shifts: Int[np.ndarray, "edges 3"]
    k_indices: Sequence[Int[np.ndarray, "_ 3"]]
    """Reciprocal indices of each structure, which many may share."""
    values: Mapping[str, np.ndarray]
    """Properties by canonical name, [structures, ...] or [atoms, ...]; zero what is left out."""
    weights: Mapping[str, np.ndarray]
    """Their weights, [structures], for dipoles [structures, 3]; zero what is left out."""
    multipoles_max_l: int
    """Highest order of reference multipoles, also where there are none."""

    def __len__(self) -> int:
        return len(self.num_atoms)

    @functools.cached_property
    def first_atom(self) -> Int[np.ndarray, "structures"]:
        """First atom of each structure."""
        return np.cumsum(self.num_atoms) - self.num_atoms

    @functools.cached_property
    def first_edge(self) -> Int[np.ndarray, "structures"]:
        """First edge of each structure."""
        return np.cumsum(self.num_edges) - self.num_edges

    @functools.cached_property
    def num_kvectors(self) -> Int[np.ndarray, "structures"]:
        """Number of reciprocal vectors of each structure."""
        return np.array([len(indices) for indices in self.k_indices])

    def take(self, rows: Sequence[int] | np.ndarray) -> Stack:
        """Some of the structures, in the order given.

        Args:
            rows: their positions.
        """
        rows = np.asarray(rows, dtype=np.int64)
        num_atoms, num_edges = self.num_atoms[rows], self.num_edges[rows]
        atoms = _ranges(self.first_atom[rows], num_atoms)
        edges = _ranges(self.first_edge[rows], num_edges)
        return dataclasses.replace(
            self,
            num_atoms=num_atoms,
            num_edges=num_edges,
            cell=self.cell[rows],
            pbc=self.pbc[rows],
            config_weight=self.config_weight[rows],
            positions=self.positions[atoms],
            species=self.species[atoms],
            senders=self.senders[edges],
            receivers=self.receivers[edges],
            cell_shifts=self.cell_shifts[edges],
            k_indices=[self.k_indices[row] for row in rows.tolist()],
            values={
                name: column[atoms if PROPERTIES[name].per_atom else rows]
                for name, column in self.values.items()
            },
            weights={name: column[rows] for name, column in self.weights.items()},
        )

    def required_sizes(self, layout: Layout, *, padding: bool = True) -> BatchSizes:
        """Smallest sizes that hold all and, with padding, one more atom and graph.

        Args:
            layout: order of the edges.
            padding: whether to have a padding atom and a padding graph.
        """
        most_neighbours = None
        if check_layout(layout) == "per_atom":
            receivers = self.receivers + np.repeat(self.first_atom, self.num_edges)
            most_neighbours = int(np.bincount(receivers, minlength=1).max())
        return sizes_that_hold(
            self.num_atoms,
            self.num_edges,
            self.num_kvectors,
            most_neighbours=most_neighbours,
            padding=padding,
        )


def stack(structures: Sequence[Structure], properties: Sequence[str] = BATCH_PROPERTIES) -> Stack:
    """Structures one after the other.

    Args:
        structures: at least one.
        properties: canonical names of those that are wanted; all that go into batches by default.

    Raises:
        DataError: if there are no structures.
    """
    if not structures:
        raise DataError("data set: found no structures")
    configurations = [entry.configuration for entry in structures]
    values = {name: [entry.values[name] for entry in configurations] for name in properties}
    weights = {name: [entry.weights[name] for entry in configurations] for name in properties}
    components = configurations[0].values["atomic_multipoles"].shape[1]
    return Stack(
        num_atoms=np.array([entry.num_atoms for entry in structures]),
        num_edges=np.array([entry.num_edges for entry in structures]),
        cell=np.stack([entry.cell for entry in configurations]),
        pbc=np.stack([entry.pbc for entry in configurations]),
        config_weight=np.array([entry.config_weight for entry in configurations]),
        positions=np.concatenate([entry.positions for entry in configurations]),
        species=np.concatenate([entry.species for entry in structures]),
        senders=np.concatenate([entry.senders for entry in structures]),
        receivers=np.concatenate([entry.receivers for entry in structures]),
        cell_shifts=np.concatenate([entry.cell_shifts for entry in structures]),
        k_indices=[entry.k_indices for entry in structures],
        values=_without_zeros(
            {
                name: np.concatenate(rows) if PROPERTIES[name].per_atom else np.stack(rows)
                for name, rows in values.items()
            }
        ),
        weights=_without_zeros({name: np.stack(rows) for name, rows in weights.items()}),
        multipoles_max_l=math.isqrt(components) - 1,
    )


def joined(stacks: Iterable[Stack]) -> Stack:
    """Several stacks, one after the other.

    Those that an iterator makes are let go array by array, so that hardly more is in memory than
    what they hold.

    Args:
        stacks: at least one.

    Raises:
        DataError: if there are none.
    """
    parts: dict[str, list] = {field.name: [] for field in dataclasses.fields(Stack)}
    for one in stacks:
        for name, held in parts.items():
            held.append(getattr(one, name))
    lengths = parts["num_atoms"]
    if not lengths:
        raise DataError("data set: found no structures")
    num_structures = [len(part) for part in lengths]
    num_atoms = [int(part.sum()) for part in lengths]
    rows = {
        name: num_atoms if entry.per_atom else num_structures for name, entry in PROPERTIES.items()
    }
    multipoles_max_l = parts.pop("multipoles_max_l")[0]
    k_indices = list(itertools.chain.from_iterable(parts.pop("k_indices")))
    values = _joined_columns(parts.pop("values"), rows)
    weights = _joined_columns(parts.pop("weights"), dict.fromkeys(PROPERTIES, num_structures))
    arrays = {name: np.concatenate(parts.pop(name)) for name in tuple(parts)}
    return Stack(
        **arrays,
        k_indices=k_indices,
        values=values,
        weights=weights,
        multipoles_max_l=multipoles_max_l,
    )


def _joined_columns(
    parts: Sequence[Mapping[str, np.ndarray]], rows: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """Columns one after the other, zero where a part has none, in so many rows of each part."""
    likes = {name: column for part in parts for name, column in part.items()}
    return {
        name: np.concatenate(
            [
                part[name] if name in part else np.zeros((count, *like.shape[1:]), like.dtype)
                for part, count in zip(parts, rows[name], strict=True)
            ]
        )
        for name, like in likes.items()
    }


def _without_zeros(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if column.any()}


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Consecutive numbers from each of `first` on, so many as `count` says, one after the other."""
    ends = np.cumsum(count)
    return np.arange(ends[-1]) + np.repeat(first - ends + count, count)
