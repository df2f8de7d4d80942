"""Sets of structures, in memory or elsewhere, whose sizes are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.structure import Structure


class StructureSet(Sequence[Structure]):
    """Structures by position, each made or read when it is asked for.

    Args:
        read: gives the structure at a position.
        sizes: of all structures.
    """

    def __init__(self, read: Callable[[int], Structure], sizes: StructureSizes):
        self._read = read
        self.sizes = sizes

    @classmethod
    def in_memory(cls, structures: Sequence[Structure]) -> StructureSet:
        """The set of given structures."""
        return cls(structures.__getitem__, StructureSizes.of(structures))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Structure:
        """The structure at a position."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"structure {index} of {len(self)}")
        return self._read(index % len(self))


def sizes_of(structures: Sequence[Structure]) -> StructureSizes:
    """Sizes of structures, without reading those that are not in memory."""
    if isinstance(structures, StructureSet):
        return structures.sizes
    return StructureSizes.of(structures)
