"""What settings of a model may be measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.graph import Graph


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """What settings of a model may be measured on."""

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    atomic_energies: tuple[float, ...]
    """Energy of an isolated atom of each element in eV."""
    electrostatics: ElectrostaticsSettings | None
    catalogue: Catalogue
    batches: Callable[[], Iterable[Graph]]
    """The training set as batches with labels, each time it is called."""
