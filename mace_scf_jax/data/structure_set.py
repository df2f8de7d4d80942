"""Sets of structures, in memory or elsewhere, whose sizes are known beforehand."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack, joined, stack
from mace_scf_jax.data.structure import Structure


class StructureSet(Sequence[Structure]):
    """Structures by position, one by one or stacked for a batch."""

    sizes: StructureSizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Structure:
        """The structure at a position, made or read when it is asked for."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"structure {index} of {len(self)}")
        return self._structure(index % len(self))

    @abc.abstractmethod
    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures one after the other, in the order given.

        Args:
            rows: their positions.
        """

    @abc.abstractmethod
    def _structure(self, index: int) -> Structure:
        """The structure at a position from 0 on."""


class StructuresInMemory(StructureSet):
    """A set of given structures, which it holds in common arrays.

    Args:
        structures: at least one; an iterator may make them one by one, so that they need not all
            be in memory besides the common arrays.

    Raises:
        DataError: if there are none.
    """

    def __init__(self, structures: Iterable[Structure]):
        self._configurations: list[Configuration] = []
        sizes = []

        def stacks() -> Iterator[Stack]:
            remaining = iter(structures)
            while some := list(itertools.islice(remaining, STACKED_AT_ONCE)):
                sizes.append(StructureSizes.of(some))
                self._configurations += [entry.configuration for entry in some]
                yield stack(some)

        self._stack = joined(stacks())
        self.sizes = StructureSizes.concatenate(sizes)

    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures; see `StructureSet.stack`."""
        return self._stack.take(rows)

    def _structure(self, index: int) -> Structure:
        held = self._stack
        atoms = slice(held.first_atom[index], held.first_atom[index] + held.num_atoms[index])
        edges = slice(held.first_edge[index], held.first_edge[index] + held.num_edges[index])
        return Structure(
            configuration=self._configurations[index],
            species=held.species[atoms],
            senders=held.senders[edges],
            receivers=held.receivers[edges],
            cell_shifts=held.cell_shifts[edges],
            k_indices=held.k_indices[index],
        )


def as_set(structures: Sequence[Structure]) -> StructureSet:
    """Structures as a set, which they may be already."""
    return structures if isinstance(structures, StructureSet) else StructuresInMemory(structures)
