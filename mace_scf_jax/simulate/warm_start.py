"""Where the search for self-consistent multipoles starts: solutions of previous geometries.

Beside a guess, a search gets what the searches before have learned of the Jacobian.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mace_scf_jax.scf import JacobianMemory
from mace_scf_jax.simulate.geometry import Geometry

Solve = Callable[[Mapping[str, Any] | None], dict[str, Any]]
"""From a start, if any, to outputs by name, with whether they ``converged``."""

FARTHEST_FIT = 0.5
"""Å; a geometry in which an atom is farther than this from what the previous ones reach is new."""

_SOLVED = ("multipoles", "fermi_level")


class StateNotUniqueWarning(UserWarning):
    """The solution depends on where its search starts."""


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """How a simulation uses the solutions of its previous geometries.

    Raises:
        ValueError: a number is out of range.
    """

    num_geometries: int = 3
    """Previous geometries that a guess is made from; 1 takes the latest solution as it is."""
    check_every: int = 100
    """Every so many calculations the solution is also searched for from the model's own initial
    state. If the two differ, a warning says so and the simulation goes on from the latter."""
    check_tolerance: float = 1e-6
    """Difference of energies per atom in eV that such a check lets pass."""

    def __post_init__(self) -> None:
        for name in ("num_geometries", "check_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found {getattr(self, name)!r}")
        if not self.check_tolerance > 0.0:
            raise ValueError(
                f"check_tolerance: expected a positive number, found {self.check_tolerance!r}"
            )


class WarmStarter:
    """Solves geometry after geometry, starting from what solved the previous ones."""

    def __init__(self, settings: WarmStart) -> None:
        self.settings = settings
        self._latest: collections.deque[tuple[Geometry, dict[str, Any]]] = collections.deque(
            maxlen=settings.num_geometries
        )
        """Geometries and what solves them."""
        self._memory: JacobianMemory | None = None
        self._calculations = 0

    def solve(self, geometry: Geometry, solve: Solve) -> dict[str, Any]:
        """The outputs of a geometry.

        A search from a guess that fails is repeated from the model's own initial state.

        Args:
            geometry: the geometry.
            solve: gives its outputs, from a start (multipoles, Fermi level and the memory of former
                searches by name) or, for None, from the model's own initial state.
        """
        start = self._guess(geometry)
        outputs = solve(start)
        self._calculations += 1
        if start is not None and not outputs["converged"]:
            outputs = solve(None)
        elif start is not None and self._calculations % self.settings.check_every == 0:
            outputs = self._check(outputs, solve(None), len(geometry.numbers))
        if outputs["converged"]:
            self._add(geometry, outputs)
        else:
            self._forget()
        return outputs

    def _guess(self, geometry: Geometry) -> dict[str, Any] | None:
        """Multipoles and Fermi level of a new geometry, from those of the previous ones.

        The new positions are fitted by a combination of the previous ones whose weights add up to
        one, and the same combination of the solutions is the guess. On a smooth trajectory that
        extrapolates; for a geometry seen before it gives its solution.

        Returns:
            The guess, or None if the atoms, their charge, field or periodicity are others, or an
            atom is far from all that the fit can reach.
        """
        if not self._latest or not self._latest[-1][0].same_system(geometry):
            return None
        displacements = np.stack([_displacements(before, geometry) for before, _ in self._latest])
        weights = _weights(displacements.reshape(len(displacements), -1))
        missed = np.linalg.norm(np.tensordot(weights, displacements, axes=1), axis=-1)
        if np.max(missed) > FARTHEST_FIT:
            return None
        combined = {
            name: np.tensordot(weights, np.stack([solved[name] for _, solved in self._latest]), 1)
            for name in _SOLVED
        }
        return {**combined, "scf_memory": self._memory}

    def _add(self, geometry: Geometry, outputs: Mapping[str, Any]) -> None:
        """Keep a solution; one of other atoms or conditions makes all others useless."""
        if self._latest:
            latest = self._latest[-1][0]
            if not latest.same_system(geometry):
                self._forget()
            elif np.array_equal(latest.positions, geometry.positions):
                self._latest.pop()
        self._latest.append((geometry, {name: outputs[name] for name in _SOLVED}))
        if outputs.get("scf_memory") is not None:
            self._memory = outputs["scf_memory"]

    def _forget(self) -> None:
        self._latest.clear()
        self._memory = None

    def _check(self, warm: dict[str, Any], cold: dict[str, Any], num_atoms: int) -> dict[str, Any]:
        """Outputs from a guess, or those from the model's own initial state if they differ."""
        difference = float(warm["energy"] - cold["energy"]) / num_atoms
        if not cold["converged"] or abs(difference) <= self.settings.check_tolerance:
            return warm
        warnings.warn(
            f"calculation {self._calculations}: the energy that follows from the previous "
            f"geometries is {difference:+.1e} eV per atom off the one found from the model's own "
            "initial state: the self-consistent solution is not unique, or the tolerance is too "
            "large. The latter is used",
            StateNotUniqueWarning,
            stacklevel=2,
        )
        self._forget()
        return cold


def _weights(displacements: Float[np.ndarray, "geometries coordinates"]) -> np.ndarray:
    """Weights of sum one that bring the weighted sum of the displacements closest to zero.

    The latest geometry is the origin, and directions in which the others hardly differ from it are
    left out: their weights would be large and amplify the errors of the solutions.
    """
    latest, others = displacements[-1], displacements[:-1]
    spread = (others - latest).T
    coefficients = np.linalg.lstsq(spread, -latest, rcond=1e-4)[0]
    return np.append(coefficients, 1.0 - np.sum(coefficients))


def _displacements(old: Geometry, new: Geometry) -> Float[np.ndarray, "atoms 3"]:
    """How far each atom was from where it is now, by the shortest way through the cell."""
    difference = old.positions - new.positions
    if not np.any(new.pbc):
        return difference
    fractional = difference @ np.linalg.inv(new.cell)
    return difference - (np.rint(fractional) * new.pbc) @ new.cell
