"""The Chebyshev descriptor of an atom's surroundings: its parameters and what follows from them.

Source:
    Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

SHORTEST_DISTANCE = 0.55
"""Å; see `Descriptor.min_cutoff`."""


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """Orders and cutoffs of the radial and angular functions, and the order of the species.

    Raises:
        ValueError: a value is out of range.
    """

    species: tuple[int, ...]
    """Atomic numbers in the order that gives the weights s; part of the model."""
    rad_order: int
    """Highest order n_r of the radial functions."""
    rad_cutoff: float
    """Radius R_r in Å."""
    ang_order: int
    """Highest order n_a of the angular functions."""
    ang_cutoff: float
    """Radius R_a in Å."""
    min_cutoff: float = SHORTEST_DISTANCE
    """Shortest distance in Å that the model is meant for. Closer neighbours count like others."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "species", tuple(int(z) for z in self.species))
        if not self.species or len(set(self.species)) < len(self.species):
            raise ValueError(f"species: expected distinct elements, found {self.symbols}")
        for name in ("rad_order", "ang_order"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, found {getattr(self, name)}")
        for name in ("rad_cutoff", "ang_cutoff"):
            if not getattr(self, name) > self.min_cutoff >= 0.0:
                raise ValueError(
                    f"{name}: expected a length above min_cutoff ({self.min_cutoff:g} Å), which is "
                    f"not negative, found {getattr(self, name):g} Å"
                )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbols of the species."""
        return tuple(chemical_symbols[z] for z in self.species)

    @property
    def cutoff(self) -> float:
        """Radius in Å within which atoms are neighbours."""
        return max(self.rad_cutoff, self.ang_cutoff)

    @property
    def is_weighted(self) -> bool:
        """Whether functions with weights of the species exist: of one species they would not."""
        return len(self.species) > 1

    @property
    def num_kinds(self) -> int:
        """Two, plain and weighted functions, or one."""
        return 1 + self.is_weighted

    @property
    def size(self) -> int:
        """Number of features F of an atom."""
        return self.num_kinds * (self.rad_order + self.ang_order + 2)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in their order: R_n, A_n, then Rw_n and Aw_n with weights."""
        orders = {"R": self.rad_order, "A": self.ang_order}
        return tuple(
            f"{function}{kind}_{n}"
            for kind in ("", "w")[: 1 + self.is_weighted]
            for function, order in orders.items()
            for n in range(order + 1)
        )

    def check_elements(self, elements: Sequence[int]) -> None:
        """Refuse elements that are no species.

        Raises:
            ValueError: names them.
        """
        unknown = [chemical_symbols[z] for z in elements if z not in self.species]
        if unknown:
            raise ValueError(
                f"descriptor, species: expected all elements of the model, found no "
                f"{', '.join(unknown)} in {', '.join(self.symbols)}"
            )

    def weights(self, elements: Sequence[int]) -> np.ndarray:
        """Return the weight s of each element.

        Weights are consecutive integers around zero in the order of the species, without zero if
        their number is even.

        Args:
            elements: atomic numbers, all of them species.
        """
        number = len(self.species)
        weights = np.arange(number) - number // 2
        if number % 2 == 0:
            weights[number // 2 :] += 1
        of_species = dict(zip(self.species, weights.astype(float), strict=True))
        return np.array([of_species[element] for element in elements])
