"""Features of atoms that depend on the geometry alone, and may be kept with structures."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

from jaxtyping import DTypeLike

from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.stack import Stack


class AtomFeatures(abc.ABC):
    """How features of atoms are computed, whatever a model learns from them."""

    elements: tuple[int, ...]
    """Atomic numbers that the species of structures index, ascending."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of features of an atom."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All that decides the numbers as JSON values, equal for equal features."""

    @abc.abstractmethod
    def computed(
        self, structures: StructureSet, *, derivatives: bool, dtype: DTypeLike
    ) -> Iterator[Stack]:
        """Give the structures with their features, some at a time, in their order.

        Args:
            structures: with edges up to the cutoff of the features.
            derivatives: whether to give pairs of atoms as edges, with derivatives; else there are
                no edges.
            dtype: of the numbers, which are computed in double precision.
        """
