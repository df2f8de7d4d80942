"""What is known of every configuration of a set without looking at the configuration itself."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mace_scf_jax.data.configuration import ISOLATED_ATOM, Configuration
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.properties import PROPERTIES, Shape
from mace_scf_jax.data.table import Table

NUMERIC_PROPERTIES: tuple[str, ...] = tuple(
    name for name, entry in PROPERTIES.items() if entry.shape is not Shape.TEXT
)
"""Canonical names of the properties that have values and weights."""


@dataclasses.dataclass(frozen=True)
class Catalogue(Table):
    """One row per configuration: all that checks, splits, summaries and statistics need.

    About half a kilobyte per configuration, however large the configurations are.
    """

    file: np.ndarray
    """Path of the file that each configuration was read from, as the user gave it, or None."""
    index: Int[np.ndarray, "configurations"]
    """Position in that file, from 0."""
    num_atoms: Int[np.ndarray, "configurations"]
    element_counts: Mapping[int, Int[np.ndarray, "configurations"]]
    """Number of atoms of each element, by atomic number."""
    cell: Float[np.ndarray, "configurations 3 3"]
    """Cells for electrostatics and volume, Å."""
    pbc: Bool[np.ndarray, "configurations 3"]
    config_type: np.ndarray
    config_weight: Float[np.ndarray, "configurations"]
    cell_rule: np.ndarray
    """Value of the `CellRule` that was applied."""
    energy: Float[np.ndarray, "configurations"]
    """Reference energies, eV; 0 where there is none."""
    fermi_level: Float[np.ndarray, "configurations"]
    """Reference Fermi levels, eV; 0 where there is none."""
    squared_forces: Float[np.ndarray, "configurations"]
    """Sum over atoms of the squared reference forces, (eV/Å)²."""
    present: Mapping[str, Bool[np.ndarray, "configurations"]]
    """Whether the configuration came with a property."""
    weights: Mapping[str, Float[np.ndarray, "configurations *components"]]
    """Weight of each property."""
    digest: UInt8[np.ndarray, "configurations 32"]
    """SHA-256 of everything in the configuration but `config_weight`."""

    @classmethod
    def of(cls, configurations: Sequence[Configuration]) -> Catalogue:
        """The catalogue of any number of configurations in memory."""
        numbers = [entry.atomic_numbers for entry in configurations]
        elements = sorted({int(z) for present in numbers for z in np.unique(present)})
        return cls(
            file=_texts(entry.location.file for entry in configurations),
            index=np.array([entry.location.index for entry in configurations], dtype=np.int64),
            num_atoms=np.array([entry.num_atoms for entry in configurations], dtype=np.int32),
            element_counts={
                z: np.array([np.sum(present == z) for present in numbers], dtype=np.int32)
                for z in elements
            },
            cell=np.array([entry.cell for entry in configurations]).reshape(-1, 3, 3),
            pbc=np.array([entry.pbc for entry in configurations], dtype=bool).reshape(-1, 3),
            config_type=_texts(entry.config_type for entry in configurations),
            config_weight=np.array([entry.config_weight for entry in configurations], dtype=float),
            cell_rule=_texts(entry.cell_rule.value for entry in configurations),
            energy=_floats(entry.values["energy"] for entry in configurations),
            fermi_level=_floats(entry.values["fermi_level"] for entry in configurations),
            squared_forces=_floats(np.sum(e.values["forces"] ** 2) for e in configurations),
            present={
                name: np.array([name in entry.present for entry in configurations], dtype=bool)
                for name in NUMERIC_PROPERTIES
            },
            weights={
                name: _floats(entry.weights[name] for entry in configurations)
                for name in NUMERIC_PROPERTIES
            },
            digest=np.array(
                [np.frombuffer(configuration_digest(e), dtype=np.uint8) for e in configurations],
                dtype=np.uint8,
            ).reshape(-1, 32),
        )

    def weighted(self, factors: Float[np.ndarray, "configurations"]) -> Catalogue:
        """The same catalogue with the weight of each configuration multiplied."""
        return dataclasses.replace(self, config_weight=self.config_weight * factors)

    def location(self, row: int) -> Location:
        """Where a configuration came from."""
        return Location(self.file[row], int(self.index[row]))

    def occurring_elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(z for z, counts in sorted(self.element_counts.items()) if counts.any())

    def counts_of(self, elements: Sequence[int]) -> Int[np.ndarray, "configurations wanted"]:
        """Number of atoms of each of the given elements."""
        none = np.zeros(len(self), dtype=np.int32)
        return np.stack([self.element_counts.get(z, none) for z in elements], axis=1)

    def isolated_atoms(self) -> Bool[np.ndarray, "configurations"]:
        """Which configurations are free atoms that give atomic energies."""
        return (self.num_atoms == 1) & (self.config_type == ISOLATED_ATOM)

    def label_weights(self) -> dict[str, float]:
        """Sum of the weights of each property, times those of the configurations."""
        return {
            name: float(np.sum(self.config_weight * _per_row(weights)))
            for name, weights in self.weights.items()
        }

    def content_digest(self) -> str:
        """A number that changes with any structure, label or weight, or with their order."""
        content = hashlib.sha256(np.ascontiguousarray(self.digest).tobytes())
        content.update(np.ascontiguousarray(self.config_weight).tobytes())
        return content.hexdigest()


def configuration_digest(entry: Configuration) -> bytes:
    """SHA-256 of a configuration without its own weight, which depends on options too.

    A missing value that stands for something but zero is left out.
    """
    stated = [
        name for name in entry.values if name in entry.present or not PROPERTIES[name].missing
    ]
    arrays = {
        "numbers": entry.atomic_numbers,
        "positions": entry.positions,
        "cell": entry.cell,
        "pbc": entry.pbc,
        **{f"value {name}": entry.values[name] for name in stated},
        **{f"weight {name}": entry.weights[name] for name in stated},
    }
    if entry.head is not None:
        arrays["head"] = np.array(entry.head)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()


def _texts(values: Iterable[str | None]) -> np.ndarray:
    """Texts (or None) as an array of objects, each distinct text stored once."""
    shared = (None if value is None else sys.intern(value) for value in values)
    return np.fromiter(shared, dtype=object)


def _floats(values: Iterable[np.ndarray]) -> np.ndarray:
    return np.array(list(values), dtype=np.float64)


def _per_row(weights: np.ndarray) -> np.ndarray:
    """Weights of all components of each row added up."""
    return weights.reshape(len(weights), -1).sum(axis=1) if weights.ndim > 1 else weights
