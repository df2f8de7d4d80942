"""What settings of a model may be measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.graph import Graph


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """What settings of a model may be measured on."""

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    atomic_energies: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """Energy of an isolated atom of each element in eV; with several heads a row for each."""
    electrostatics: ElectrostaticsSettings | None
    catalogue: Catalogue
    batches: Callable[[], Iterable[Graph]]
    """The training set as batches with labels, each time it is called."""
    heads: tuple[str, ...] = ()
    """Levels of theory; empty for a single one."""
    head_of: np.ndarray | None = None
    """Place of the head of every structure; None for a single one."""

    def by_head(self) -> list[tuple[str, Catalogue, tuple[float, ...]]]:
        """Return name, structures and atomic energies of every head; of a single one, no name."""
        if not self.heads:
            return [("", self.catalogue, self.atomic_energies)]  # type: ignore[list-item]
        return [
            (name, self.catalogue.take(np.flatnonzero(self.head_of == place)), energies)
            for place, (name, energies) in enumerate(
                zip(self.heads, self.atomic_energies, strict=True)
            )
        ]  # type: ignore[misc]
