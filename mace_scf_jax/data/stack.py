"""Structures one after the other in common arrays, from which batches are made.

A batch is some tens of arrays. Put together structure by structure and property by property it
costs hundreds of small steps in Python; from arrays that hold all structures it costs one selection
of rows for each.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.properties import BATCH_PROPERTIES, PROPERTIES
from mace_scf_jax.data.sizes import BatchSizes, Layout, batch_sizes, check_layout
from mace_scf_jax.data.structure import Structure


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
        neighbours = None
        if check_layout(layout) == "per_atom":
            receivers = self.receivers + np.repeat(self.first_atom, self.num_edges)
            neighbours = max(1, int(np.bincount(receivers, minlength=1).max()))
        return batch_sizes(
            atoms=len(self.positions) + padding,
            edges=max(1, len(self.senders)),
            graphs=len(self) + padding,
            slots=int(self.num_atoms.max()),
            kvectors=max(len(indices) for indices in self.k_indices),
            neighbours_per_atom=neighbours,
        )


def stack(structures: Sequence[Structure], properties: Sequence[str] = BATCH_PROPERTIES) -> Stack:
    """Structures one after the other.

    Args:
        structures: at least one.
        properties: canonical names of those that are wanted; all that go into batches by default.
    """
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


def _without_zeros(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if column.any()}


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Consecutive numbers from each of `first` on, so many as `count` says, one after the other."""
    ends = np.cumsum(count)
    return np.arange(ends[-1]) + np.repeat(first - ends + count, count)
