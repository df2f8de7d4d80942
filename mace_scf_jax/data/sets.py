"""Sets of configurations and of structures made from them, in memory or in files."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE, Stack, stack
from mace_scf_jax.data.structure import Structure, prepare


class StructureSet(Sequence[Structure]):
    """Structures by position, one by one or stacked for a batch."""

    sizes: StructureSizes
    """Of all structures; they are known before any is read."""

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Structure:
        """The structure at a position, made or read when it is asked for."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"structure {index} of {len(self)}")
        index %= len(self)
        stacked = self.stack(np.array([index]))
        return Structure(
            configuration=self._configuration(index, stacked),
            species=stacked.atoms["species"],
            k_indices=stacked.k_indices[0],
            repeat=float(stacked.repeat[0]),
            **{name: stacked.edges[name] for name in ("senders", "receivers", "cell_shifts")},
        )

    @abc.abstractmethod
    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures, given by their positions, one after the other in this order."""

    @abc.abstractmethod
    def without_edges(self) -> StructureSet:
        """The same structures with no edges, and no derivatives by their vectors."""

    def with_stored_features(self, *, derivatives: bool) -> StructureSet | None:
        """The same structures with the features that are stored with them; None if none are.

        Args:
            derivatives: whether to have derivatives, with pairs of atoms as edges; else there are
                no edges.
        """
        return None

    @abc.abstractmethod
    def _configuration(self, index: int, stacked: Stack) -> Configuration:
        """The configuration of a structure, which is also given as a stack of this one."""


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

        def stacks() -> Iterator[Stack]:
            remaining = iter(structures)
            while some := list(itertools.islice(remaining, STACKED_AT_ONCE)):
                self._configurations += [entry.configuration for entry in some]
                yield stack(some)

        self._stack = Stack.concatenate(stacks())
        self.sizes = StructureSizes.of(self._stack)

    def stack(self, rows: np.ndarray) -> Stack:
        """Some of the structures; see `StructureSet.stack`."""
        return self._stack.take(rows)

    @classmethod
    def of_stack(
        cls, stacked: Stack, configurations: Sequence[Configuration]
    ) -> StructuresInMemory:
        """The set of structures that are stacked already, with their configurations."""
        members = cls.__new__(cls)
        members._stack, members._configurations = stacked, configurations  # type: ignore[assignment]
        members.sizes = StructureSizes.of(stacked)
        return members

    def without_edges(self) -> StructuresInMemory:
        """The same structures with no edges, and no derivatives by their vectors."""
        return self.of_stack(self._stack.without_edges(), self._configurations)

    def _configuration(self, index: int, stacked: Stack) -> Configuration:
        return self._configurations[index]


def as_set(structures: Sequence[Structure]) -> StructureSet:
    """Structures as a set, which they may be already."""
    return structures if isinstance(structures, StructureSet) else StructuresInMemory(structures)


class ConfigurationSet(Sequence[Configuration]):
    """Configurations by position, and the structures made from them.

    Whatever the catalogue tells should be taken from it: a set may be larger than the memory, and
    then each item is read from a file when it is asked for.
    """

    catalogue: Catalogue

    def __len__(self) -> int:
        return len(self.catalogue)

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Configuration:
        """The configuration at a position."""

    @abc.abstractmethod
    def take(self, rows: Sequence[int] | np.ndarray) -> ConfigurationSet:
        """The set of some of the configurations, given by their positions, in the order given."""

    @abc.abstractmethod
    def prepare(
        self,
        *,
        elements: Sequence[int],
        cutoff: float,
        kspace_cutoff: float | None,
        tails: float | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> StructureSet:
        """The structures that a model takes.

        Args:
            elements: atomic numbers that the model knows, ascending.
            cutoff: cutoff of the edges, Å.
            kspace_cutoff: cutoff of the reciprocal vectors, 1/Å; None where the model needs none.
            tails: length in Å to which Gaussians reach, for the boundary condition ``exact``.
            features: what describes the features that the model takes (`AtomFeatures.to_dict`), if
                stored ones are to be used.

        Raises:
            DataError: if a configuration cannot be used with this model.
        """


class ConfigurationsInMemory(ConfigurationSet):
    """A set of given configurations, with their catalogue if it is known already."""

    def __init__(self, configurations: Sequence[Configuration], catalogue: Catalogue | None = None):
        self._configurations = tuple(configurations)
        self.catalogue = Catalogue.of(self._configurations) if catalogue is None else catalogue

    def __getitem__(self, index: int) -> Configuration:
        """The configuration at a position."""
        return self._configurations[index]

    def take(self, rows: Sequence[int] | np.ndarray) -> ConfigurationsInMemory:
        """The set of some of the configurations; see `ConfigurationSet.take`."""
        chosen = [self._configurations[row] for row in rows]
        return ConfigurationsInMemory(chosen, self.catalogue.take(rows))

    def prepare(
        self,
        *,
        elements: Sequence[int],
        cutoff: float,
        kspace_cutoff: float | None,
        tails: float | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> StructureSet:
        """Find edges and reciprocal vectors of all; nothing is stored."""
        return StructuresInMemory(
            prepare(
                entry, elements=elements, cutoff=cutoff, kspace_cutoff=kspace_cutoff, tails=tails
            )
            for entry in self
        )
