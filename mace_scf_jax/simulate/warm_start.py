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

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.predict.convergence import has_converged
from mace_scf_jax.scf import JacobianMemory

Solve = Callable[[Mapping[str, Any] | None], dict[str, Any]]
"""From a start, if any, to outputs."""

FARTHEST_FIT = 0.5
"""Å; a geometry in which an atom is farther than this from what the previous ones reach is new."""


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


@dataclasses.dataclass(frozen=True)
class _Solved:
    """Multipoles and Fermi level that solve a geometry."""

    configuration: Configuration
    multipoles: Float[np.ndarray, "atoms components"]
    fermi_level: float


class WarmStarter:
    """Solves geometry after geometry, starting from what solved the previous ones.

    Args:
        settings: how.
    """

    def __init__(self, settings: WarmStart) -> None:
        self.settings = settings
        self._latest: collections.deque[_Solved] = collections.deque(maxlen=settings.num_geometries)
        self._memory: JacobianMemory | None = None
        self._calculations = 0

    def solve(self, configuration: Configuration, solve: Solve) -> dict[str, Any]:
        """The outputs of a geometry.

        A search from a guess that fails is repeated from the model's own initial state.

        Args:
            configuration: the geometry.
            solve: gives its outputs, from a start (multipoles, Fermi level and the memory of former
                searches by name) or, for None, from the model's own initial state.
        """
        start = self._guess(configuration)
        outputs = solve(start)
        self._calculations += 1
        if start is not None and not has_converged(outputs):
            outputs = solve(None)
        elif start is not None and self._calculations % self.settings.check_every == 0:
            outputs = self._checked(outputs, solve(None), configuration)
        if has_converged(outputs):
            self._add(configuration, outputs)
        else:
            self._forget()
        return outputs

    def _guess(self, configuration: Configuration) -> dict[str, Any] | None:
        """Multipoles and Fermi level of a new geometry, from those of the previous ones.

        The new positions are fitted by a combination of the previous ones whose weights add up to
        one, and the same combination of the solutions is the guess. On a smooth trajectory that
        extrapolates; for a geometry seen before it gives its solution.

        Args:
            configuration: the new geometry.

        Returns:
            The guess, or None if the atoms, their charge, field or periodicity are others, or an
            atom is far from all that the fit can reach.
        """
        if not self._latest or not _same_conditions(self._latest[-1].configuration, configuration):
            return None
        displacements = np.stack(
            [_displacements(entry.configuration, configuration) for entry in self._latest]
        )
        weights = _weights(displacements.reshape(len(displacements), -1))
        missed = np.linalg.norm(np.tensordot(weights, displacements, axes=1), axis=-1)
        if np.max(missed) > FARTHEST_FIT:
            return None
        return {
            "multipoles": np.tensordot(
                weights, np.stack([entry.multipoles for entry in self._latest]), axes=1
            ),
            "fermi_level": weights @ np.array([entry.fermi_level for entry in self._latest]),
            "scf_memory": self._memory,
        }

    def _add(self, configuration: Configuration, outputs: Mapping[str, Any]) -> None:
        """Remember a solution; one of other atoms or conditions makes all others useless."""
        if self._latest:
            latest = self._latest[-1].configuration
            if not _same_conditions(latest, configuration):
                self._forget()
            elif np.array_equal(latest.positions, configuration.positions):
                self._latest.pop()
        self._latest.append(
            _Solved(configuration, outputs["multipoles"], float(outputs["fermi_level"]))
        )
        if outputs.get("scf_memory") is not None:
            self._memory = outputs["scf_memory"]

    def _forget(self) -> None:
        self._latest.clear()
        self._memory = None

    def _checked(
        self, warm: dict[str, Any], cold: dict[str, Any], configuration: Configuration
    ) -> dict[str, Any]:
        """Outputs from a guess, or those from the model's own initial state if they differ."""
        difference = float(warm["energy"] - cold["energy"]) / configuration.num_atoms
        if not has_converged(cold) or abs(difference) <= self.settings.check_tolerance:
            return warm
        warnings.warn(
            f"{configuration.location}, calculation {self._calculations}: the energy that follows "
            f"from the previous geometries is {difference:+.1e} eV per atom off the one found "
            "from the model's own initial state: the self-consistent solution is not unique, or "
            "the tolerance is too large. The latter is used",
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


def _displacements(old: Configuration, new: Configuration) -> Float[np.ndarray, "atoms 3"]:
    """How far each atom was from where it is now, by the shortest way through the cell."""
    difference = old.positions - new.positions
    if not np.any(new.pbc):
        return difference
    fractional = difference @ np.linalg.inv(new.cell)
    return difference - (np.rint(fractional) * new.pbc) @ new.cell


_CONDITIONS = ("total_charge", "external_field", "fermi_level")


def _same_conditions(one: Configuration, other: Configuration) -> bool:
    """Whether two geometries are of the same atoms in the same surroundings."""
    return (
        np.array_equal(one.atomic_numbers, other.atomic_numbers)
        and np.array_equal(one.pbc, other.pbc)
        and all(np.array_equal(one.values[name], other.values[name]) for name in _CONDITIONS)
    )
