"""Sets of configurations, in memory or in files, with a catalogue of what they hold."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.data.structure_set import StructureSet, StructuresInMemory


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
        """The set of some of the configurations, in the order given.

        Args:
            rows: their positions.
        """

    @abc.abstractmethod
    def prepare(
        self, *, elements: Sequence[int], cutoff: float, kspace_cutoff: float | None
    ) -> StructureSet:
        """The structures that a model takes.

        Args:
            elements: atomic numbers that the model knows, ascending.
            cutoff: cutoff of the edges, Å.
            kspace_cutoff: cutoff of the reciprocal vectors, 1/Å; None where the model needs none.

        Raises:
            DataError: if a configuration cannot be used with this model.
        """


class ConfigurationsInMemory(ConfigurationSet):
    """A set of given configurations.

    Args:
        configurations: any number.
        catalogue: of these configurations, if it is known already.
    """

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
        self, *, elements: Sequence[int], cutoff: float, kspace_cutoff: float | None
    ) -> StructureSet:
        """Find edges and reciprocal vectors of all; see `ConfigurationSet.prepare`."""
        return StructuresInMemory(
            prepare(entry, elements=elements, cutoff=cutoff, kspace_cutoff=kspace_cutoff)
            for entry in self
        )
