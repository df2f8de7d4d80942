"""Structures at rest: ASE's optimisers on the energy of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import ase
import ase.filters
import ase.optimize
import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.boundary import pbc_letters
from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models import SCFState
from mace_scf_jax.predict.model import Model
from mace_scf_jax.simulate.functional import EnergyFunction, energy_function
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.simulation import without_labels

OPTIMISERS = {
    "bfgs": ase.optimize.BFGS,
    "fire": ase.optimize.FIRE,
    "lbfgs": ase.optimize.LBFGS,
}
"""ASE's optimisers by name."""

LARGEST_STRAIN = 0.2
"""Change of the cell that one set of reciprocal vectors serves, so that the energy is smooth."""


class RelaxationError(ValueError):
    """A structure cannot be relaxed as asked for."""


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """A relaxed structure."""

    atoms: ase.Atoms
    """With energy, forces and, if the cell was relaxed, stress of its calculator."""
    steps: int
    converged: bool
    largest_force: float
    """eV/Å."""


@dataclasses.dataclass(frozen=True)
class RelaxationStep:
    """Where a relaxation is."""

    step: int
    energy: float
    """eV."""
    largest_force: float
    """On an atom, eV/Å."""
    atoms: ase.Atoms


def relax(
    model: Model,
    atoms: ase.Atoms,
    *,
    optimiser: str = "lbfgs",
    largest_force: float = 0.01,
    max_steps: int = 500,
    cell: bool = False,
    report: Callable[[RelaxationStep], Any] = lambda step: None,
) -> Relaxation:
    """Move atoms, and the cell if wanted, to where forces vanish.

    Args:
        model: a model.
        atoms: the structure; left alone.
        optimiser: a name in `OPTIMISERS`.
        largest_force: on any atom at which to stop, eV/Å; for the cell, of its generalised force.
        max_steps: after which to give up.
        cell: whether to relax the cell too.
        report: called with every step.

    Raises:
        RelaxationError: an option makes no sense, or the energy is not finite.
        DataError: the structure cannot be used.
    """
    if optimiser not in OPTIMISERS:
        raise RelaxationError(unknown_name("optimiser", optimiser, OPTIMISERS))
    if not (np.isfinite(largest_force) and largest_force > 0.0):
        raise RelaxationError(f"largest force: found {largest_force}, expected a positive number")
    if cell and not atoms.pbc.all():
        raise RelaxationError(
            "cell: expected a structure that is periodic in three directions, "
            f"found pbc {pbc_letters(atoms.pbc)}"
        )
    moving = without_labels(atoms)
    moving.calc = _SmoothCalculator(model, cell=cell)
    optimised = ase.filters.FrechetCellFilter(moving) if cell else moving
    search = OPTIMISERS[optimiser](optimised, logfile=None)
    search.attach(
        lambda: report(
            RelaxationStep(
                search.nsteps,
                moving.get_potential_energy(),
                _largest(moving.get_forces()),
                moving,
            )
        )
    )
    converged = bool(search.run(fmax=largest_force, steps=max_steps))
    return Relaxation(moving, search.nsteps, converged, _largest(moving.get_forces()))


class _SmoothCalculator(Calculator):
    """Energies that are smooth functions of the cell, whose neighbours outlive steps."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, model: Model, *, cell: bool) -> None:
        super().__init__()
        self._energy_fn: EnergyFunction
        self._energy_fn, self._prepare = energy_function(
            model, largest_strain=LARGEST_STRAIN if cell else 0.0
        )
        self._stress = cell
        self._neighbours: Neighbours | None = None
        self._scf_state: SCFState | None = None

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        positions = jnp.asarray(self.atoms.positions)
        if self._neighbours is None:
            self._neighbours = self._prepare(self.atoms)
        cell = jnp.asarray(self.atoms.cell.array) if self._stress else self._neighbours.cell
        neighbours = self._neighbours.update(positions, cell)
        if not bool(neighbours.is_valid(positions, cell)):
            neighbours = self._prepare(self.atoms, self._neighbours)
        self._neighbours = neighbours
        results = jax.device_get(
            self._energy_fn.results(
                positions,
                neighbours,
                cell=cell if self._stress else None,
                stress=self._stress,
                start=self._scf_state,
            )
        )
        if not (np.isfinite(results.energy) and bool(results.converged)):
            raise RelaxationError("the energy is not finite, or the multipoles do not converge")
        self._scf_state = results.scf_state
        energy = float(results.energy)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.asarray(results.forces, np.float64),
        }
        if results.stress is not None:
            stress = np.asarray(results.stress, np.float64)
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)


def _largest(forces: np.ndarray) -> float:
    return float(np.sqrt((forces**2).sum(axis=1).max()))
