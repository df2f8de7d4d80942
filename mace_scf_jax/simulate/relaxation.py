"""Structures at rest: ASE's optimisers on the energy of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import ase
import ase.filters
import ase.optimize
import numpy as np

from mace_scf_jax.boundary import pbc_letters
from mace_scf_jax.predict.committee import Committee
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.use import Options
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.simulate.calculator import MACESCFCalculator
from mace_scf_jax.simulate.committee_calculator import CommitteeCalculator
from mace_scf_jax.simulate.simulation import without_labels
from mace_scf_jax.simulate.warm_start import WarmStart

OPTIMISERS = {
    "bfgs": ase.optimize.BFGS,
    "fire": ase.optimize.FIRE,
    "lbfgs": ase.optimize.LBFGS,
}
"""ASE's optimisers by name."""


class RelaxationError(ValueError):
    """A structure cannot be relaxed as asked for."""


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """A relaxed structure."""

    atoms: ase.Atoms
    """With energy, forces, charges and, if the cell was relaxed, stress of its calculator, and
    with multipoles."""
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
    model: Model | Committee | str | Path,
    atoms: ase.Atoms,
    *,
    optimiser: str = "lbfgs",
    largest_force: float = 0.01,
    max_steps: int = 500,
    cell: bool = False,
    report: Callable[[RelaxationStep], Any] = lambda step: None,
    **options: Unpack[Options],
) -> Relaxation:
    """Move atoms, and the cell if wanted, to where forces vanish.

    Args:
        model: a model or the path of its file; or a committee.
        atoms: the structure; left alone. Its constraints are kept.
        optimiser: a name in `OPTIMISERS`.
        largest_force: on any atom at which to stop, eV/Å; for the cell, of its generalised force.
        max_steps: after which to give up.
        cell: whether to relax the cell too.
        report: called with every step.
        options: how the model is used, see `mace_scf_jax.predict.use.Options`.

    Raises:
        RelaxationError: an option makes no sense, or the energy is not finite.
        NotConvergedError: multipoles are not self-consistent.
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
    is_committee = isinstance(model, Committee)
    model = model.using(**options) if is_committee else load_model(model, **options)
    moving = without_labels(atoms, model.first.input_keys)
    moving.calc = (CommitteeCalculator if is_committee else MACESCFCalculator)(
        model,
        warm_start=WarmStart() if model.first.is_self_consistent else None,
        smooth=cell or not atoms.pbc.any(),
    )
    optimised = ase.filters.FrechetCellFilter(moving) if cell else moving
    search = OPTIMISERS[optimiser](optimised, logfile=None)

    def report_step() -> None:
        energy, forces = moving.get_potential_energy(), moving.get_forces()
        if not np.isfinite(energy):
            raise RelaxationError(f"step {search.nsteps}: found an energy of {energy}")
        if "multipoles" in moving.calc.results:
            moving.arrays["multipoles"] = moving.calc.results["multipoles"]
        report(RelaxationStep(search.nsteps, energy, _largest(forces), moving))

    search.attach(report_step)
    converged = bool(search.run(fmax=largest_force, steps=max_steps))
    return Relaxation(moving, search.nsteps, converged, _largest(moving.get_forces()))


def _largest(forces: np.ndarray) -> float:
    return float(np.sqrt((forces**2).sum(axis=1).max()))
