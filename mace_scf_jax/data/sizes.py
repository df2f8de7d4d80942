"""Sizes of padded batches, and the choice of few sizes that hold many batches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.stack import Stack, stack
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.data.table import Table

Layout = Literal["flat", "per_atom"]
"""Order of the edges: sorted by receiver, or padded to the same number for every atom."""

_STEPS_PER_DOUBLING = 16
_CUTS = 256


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """Length of every padded axis of a batch, padding included."""

    atoms: int
    edges: int
    graphs: int
    slots: int
    kvectors: int
    neighbours_per_atom: int | None = None
    """Edges of each atom in the layout "per_atom"; None for the layout "flat"."""
    open_slots: int = 0
    """Slots of those structures whose Coulomb sum is over pairs of atoms in the boundary condition
    ``exact``: those without a periodic direction."""

    def __post_init__(self) -> None:
        minima = {"atoms": 1, "edges": 1, "graphs": 1, "slots": 1, "kvectors": 0, "open_slots": 0}
        for name, minimum in minima.items():
            if getattr(self, name) < minimum:
                raise DataError(
                    f"batch sizes, {name}: found {getattr(self, name)}, expected at least {minimum}"
                )
        if self.neighbours_per_atom is not None and (
            self.neighbours_per_atom < 1 or self.edges != self.atoms * self.neighbours_per_atom
        ):
            raise DataError(
                f"batch sizes: found {self.edges} edges for {self.atoms} atoms with "
                f"{self.neighbours_per_atom} neighbours each, expected their product"
            )

    def holds(self, other: BatchSizes) -> bool:
        """Whether a batch that needs `other` fits."""
        return self == merge((self, other))

    def rounded(self) -> BatchSizes:
        """Sizes rounded up to a geometric series, so that few different sizes occur."""
        return _batch_sizes(
            atoms=round_up(self.atoms),
            edges=round_up(self.edges),
            graphs=self.graphs,
            slots=round_up(self.slots),
            kvectors=round_up(self.kvectors),
            open_slots=round_up(self.open_slots),
            neighbours_per_atom=self.neighbours_per_atom,
        )

    def with_room(self, extra: float, *, kvectors: float = 0.0) -> BatchSizes:
        """Room for more neighbours of each atom than there are, in the layout "per_atom".

        Args:
            extra: the room as a part of the largest number of neighbours.
            kvectors: likewise, room for more reciprocal vectors.
        """
        neighbours = round_up(math.ceil((1.0 + extra) * self.neighbours_per_atom))
        return dataclasses.replace(
            self,
            neighbours_per_atom=neighbours,
            edges=self.atoms * neighbours,
            kvectors=round_up(math.ceil((1.0 + kvectors) * self.kvectors)),
        )

    def with_atoms(self, atoms: int) -> BatchSizes:
        """The sizes for one structure of so many atoms, in the layout "per_atom"."""
        edges = atoms * self.neighbours_per_atom
        open_slots = atoms if self.open_slots else 0
        return dataclasses.replace(
            self, atoms=atoms, slots=atoms, edges=edges, open_slots=open_slots
        )

    def work(self) -> float:
        """Rough relative cost of evaluating a batch, in units of one edge.

        An atom (products, mixing) counts like 20 edges, a pair of slot and reciprocal vector
        like a twentieth, a pair of atoms without periodic direction like a third: only good for
        weighing the padding of different axes.
        """
        sums = 0.05 * self.slots * self.kvectors + 0.3 * self.open_slots**2
        return self.edges + 20.0 * self.atoms + self.graphs * sums


@dataclasses.dataclass(frozen=True)
class StructureSizes(Table):
    """Sizes of each structure of a set, one row per structure."""

    atoms: Int[np.ndarray, "structures"]
    edges: Int[np.ndarray, "structures"]
    kvectors: Int[np.ndarray, "structures"]
    neighbours: Int[np.ndarray, "structures"]
    """Largest number of neighbours of an atom."""
    connected_atoms: Int[np.ndarray, "structures"]
    """Number of atoms that have a neighbour."""
    repeat: Float[np.ndarray, "structures"]
    """Length in Å as of `mace_scf_jax.data.cells.repeat_length`."""

    @classmethod
    def of(cls, stacked: Stack) -> StructureSizes:
        """The sizes of structures in memory."""
        atoms, edges = stacked.atoms, stacked.edges
        receivers = edges["receivers"] + np.repeat(atoms.first, edges.counts)
        neighbours = np.bincount(receivers, minlength=atoms.total)
        return cls(
            atoms=atoms.counts,
            edges=edges.counts,
            kvectors=stacked.num_kvectors,
            neighbours=np.maximum.reduceat(neighbours, atoms.first),
            connected_atoms=np.add.reduceat((neighbours > 0).astype(np.int64), atoms.first),
            repeat=stacked.repeat,
        )

    def of_one_batch(
        self, layout: Layout, *, graphs: int | None = None, padding: bool = True
    ) -> BatchSizes:
        """Smallest sizes that hold all and, with padding, one more atom and graph.

        Args:
            layout: order of the edges.
            graphs: leave room for so many structures; None for as many as there are.
            padding: whether to have a padding atom and a padding graph.
        """
        is_flat = check_layout(layout) == "flat"
        return _batch_sizes(
            atoms=int(self.atoms.sum()) + padding,
            edges=max(1, int(self.edges.sum())),
            graphs=(len(self) if graphs is None else graphs) + padding,
            slots=int(self.atoms.max()),
            kvectors=int(self.kvectors.max()),
            open_slots=int(np.max(self.atoms, where=np.isinf(self.repeat), initial=0)),
            neighbours_per_atom=None if is_flat else max(1, int(self.neighbours.max())),
        )

    def of_any_batch(self, count: int, layout: Layout, *, repeats: bool = False) -> BatchSizes:
        """Sizes that hold any batch of `count` of the structures.

        Args:
            count: structures in a batch.
            layout: order of the edges.
            repeats: whether a structure may be there several times.
        """
        atoms, edges = (
            np.repeat(np.max(sizes), count) if repeats else np.sort(sizes)[-count:]
            for sizes in (self.atoms, self.edges)
        )
        return _batch_sizes(
            **dataclasses.asdict(self.of_one_batch(layout, graphs=count))
            | {"atoms": int(atoms.sum()) + 1, "edges": max(1, int(edges.sum()))}
        )


def check_layout(layout: Layout) -> Layout:
    """The layout itself.

    Raises:
        DataError: if there is no such layout.
    """
    if layout not in get_args(Layout):
        raise DataError(f"layout: found {layout!r}, expected one of {', '.join(get_args(Layout))}")
    return layout


def round_up(size: int) -> int:
    """The next size in a series of 16 steps per doubling, at most 1/16 above `size`."""
    step = 1
    while size > 2 * _STEPS_PER_DOUBLING * step:
        step *= 2
    return -(-size // step) * step


def required_sizes(
    structures: Sequence[Structure], layout: Layout = "flat", *, padding: bool = True
) -> BatchSizes:
    """Smallest sizes that hold these structures and, with padding, one more atom and graph."""
    check_layout(layout)
    if not structures:
        raise DataError("batch: found no structures")
    return StructureSizes.of(stack(structures, ())).of_one_batch(layout, padding=padding)


def merge(sizes: Iterable[BatchSizes]) -> BatchSizes:
    """Smallest sizes that hold each of the given sizes."""
    return functools.reduce(_merge_two, sizes)


def choose_buckets(
    needed: Sequence[BatchSizes], *, max_buckets: int, tolerance: float = 0.1
) -> tuple[BatchSizes, ...]:
    """Few sizes that hold all the given batches with little padding.

    The batches are sorted by work and cut into consecutive groups; the sizes of a group hold all
    batches up to its last one. The cuts are optimal (dynamic programming over the total work, for
    many batches among 256 evenly spaced cuts), and of all numbers of groups the smallest is taken
    whose work is within `tolerance` of the best: each further size costs a compilation.

    Args:
        needed: exact sizes of batches that occur.
        max_buckets: largest number of sizes.
        tolerance: relative work that one may waste to save compilations.

    Returns:
        Distinct sizes by increasing work, each holding the one before.
    """
    if max_buckets < 1:
        raise DataError(f"max_buckets: found {max_buckets}, expected at least 1")
    ordered = sorted(needed, key=BatchSizes.work)
    nested = [ordered[0]]
    for sizes in ordered[1:]:
        nested.append(merge((nested[-1], sizes)))
    # Group ends, the first being none; `held[j]` are the sizes that hold all batches before it.
    ends = np.unique(np.linspace(0, len(ordered), min(len(ordered), _CUTS) + 1).astype(int))
    held = [None, *(nested[end - 1].rounded() for end in ends[1:])]
    work = np.array([0.0, *(sizes.work() for sizes in held[1:])])
    best = ends * work
    totals, starts = [best[-1]], [np.zeros(len(ends), dtype=int)]
    for _ in range(1, max_buckets):
        # options[i, j]: batches before ends[i] as before, those up to ends[j] as one more group.
        options = best[:, None] + (ends[None, :] - ends[:, None]) * work[None, :]
        options[np.tril_indices(len(ends), -1)] = np.inf
        starts.append(np.argmin(options, axis=0))
        best = np.min(options, axis=0)
        totals.append(best[-1])
    groups = int(np.argmax(np.array(totals) <= (1.0 + tolerance) * totals[-1]))
    chosen, last = [], len(ends) - 1
    for level in range(groups, -1, -1):
        if last > 0:
            chosen.append(held[last])
            last = int(starts[level][last])
    return tuple(sorted(set(chosen), key=BatchSizes.work))


def _merge_two(first: BatchSizes, second: BatchSizes) -> BatchSizes:
    if (first.neighbours_per_atom is None) != (second.neighbours_per_atom is None):
        raise DataError("batch sizes: found both layouts, expected one")
    return _batch_sizes(
        **{
            field.name: None
            if getattr(first, field.name) is None
            else max(getattr(first, field.name), getattr(second, field.name))
            for field in dataclasses.fields(BatchSizes)
        }
    )


def _batch_sizes(**sizes: int | None) -> BatchSizes:
    """`BatchSizes`, with the edges that follow from atoms and neighbours where those are given."""
    if sizes["neighbours_per_atom"] is not None:
        sizes["edges"] = sizes["atoms"] * sizes["neighbours_per_atom"]
    return BatchSizes(**sizes)
