"""Constants by which features and energies are brought to the order of one."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Row = tuple[float, ...]
Rows = tuple[Row, ...]
"""One row for all elements, or one for each."""

SMALLEST_VARIANCE = 1e-12
"""Added to variances, so that a constant feature has a deviation of 1e-6."""

SMALLEST_DEVIATION = 1e-10
"""Up to which the Fortran programs of ænet leave a feature out."""

ROUNDING = 1e-5
"""Of a feature, by which it may be outside a range and counts as within."""


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Mean, deviation and range of the features over the atoms of the training set.

    Raises:
        ValueError: rows differ in length, or a deviation is negative.
    """

    mean: Rows
    std: Rows
    """A feature whose deviation is 0 is not used: it is zero after normalisation."""
    minimum: Rows | None = None
    """Smallest value of each feature; None if it is not known."""
    maximum: Rows | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            rows = getattr(self, field.name)
            if rows is not None:
                rows = tuple(tuple(float(value) for value in row) for row in rows)
                object.__setattr__(self, field.name, rows)
        if {len(row) for row in (*self.mean, *self.std)} != {len(self.mean[0])}:
            raise ValueError("feature statistics: expected as many deviations as means")
        if np.min(self.std) < 0.0:
            raise ValueError(f"feature statistics: found the deviation {np.min(self.std):g} < 0")

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.mean[0])

    @property
    def has_range(self) -> bool:
        """Whether smallest and largest values are known."""
        return self.minimum is not None and self.maximum is not None

    def outside(
        self, features: Float[Array, "atoms f"], species: Int[Array, "atoms"]
    ) -> Float[Array, "atoms"]:
        """Fraction of the features of each atom that are smaller or larger than any of training.

        Args:
            features: raw ones.
            species: index of the element of each atom.
        """
        low, high = np.array(self.minimum), np.array(self.maximum)
        margin = ROUNDING * np.maximum(np.abs(low), np.abs(high))
        rows = species if len(low) > 1 else jnp.zeros_like(species)
        low, high = (jnp.asarray(edge, features.dtype) for edge in (low - margin, high + margin))
        beyond = (features < low[rows]) | (features > high[rows])
        return jnp.mean(beyond.astype(features.dtype), axis=1)

    def centre_and_scale(self) -> tuple[Float[np.ndarray, "rows f"], Float[np.ndarray, "rows f"]]:
        """Return μ and 1/σ, zero for features that are not used."""
        std = np.array(self.std)
        return np.array(self.mean), np.where(std > 0.0, 1.0 / np.where(std > 0.0, std, 1.0), 0.0)


def deviations_of_moments(
    mean: Float[np.ndarray, "*shape"], second_moment: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Deviations √(⟨G²⟩ - ⟨G⟩²), zero where the Fortran programs of ænet leave a feature out."""
    std = np.sqrt(np.maximum(second_moment - mean**2, 0.0))
    return np.where(std > SMALLEST_DEVIATION, std, 0.0)


class Moments:
    """Sums over atoms from which `FeatureStatistics` follow.

    Args:
        rows: number of rows, one for each element or one for all.
        size: number of features.
    """

    def __init__(self, rows: int, size: int):
        self.count = np.zeros(rows)
        self.sum = np.zeros((rows, size))
        self.squares = np.zeros((rows, size))
        self.minimum = np.full((rows, size), np.inf)
        self.maximum = np.full((rows, size), -np.inf)

    def add(
        self, features: Float[np.ndarray, "atoms f"], row: Float[np.ndarray, "atoms"] | np.ndarray
    ) -> None:
        """Add atoms.

        Args:
            features: raw ones.
            row: index of the row to which each atom counts.
        """
        np.add.at(self.count, row, 1.0)
        np.add.at(self.sum, row, features)
        np.add.at(self.squares, row, features**2)
        np.minimum.at(self.minimum, row, features)
        np.maximum.at(self.maximum, row, features)

    def statistics(self) -> FeatureStatistics:
        """Return mean μ and deviation, σ² = max(⟨G²⟩ - μ², 0) + 1e-12, of each row."""
        count = self.count[:, None]
        mean = self.sum / count
        variance = np.maximum(self.squares / count - mean**2, 0.0) + SMALLEST_VARIANCE
        return FeatureStatistics(
            *(map(tuple, rows) for rows in (mean, np.sqrt(variance), self.minimum, self.maximum))
        )


def energy_scaling_and_shift(per_atom: Float[np.ndarray, "structures"]) -> tuple[float, float]:
    """S and e_0 that map energies to the interval from -1 to 1: e = y/S + e_0.

    Args:
        per_atom: energy of each structure beyond its isolated atoms, per atom in eV.

    Returns:
        S in 1/eV and e_0 in eV; 1 and 0 if all energies are equal, or there are none.
    """
    if per_atom.size == 0 or np.ptp(per_atom) == 0.0:
        return 1.0, 0.0
    low, high = float(np.min(per_atom)), float(np.max(per_atom))
    return 2.0 / (high - low), 0.5 * (high + low)
