"""ASE calculator of a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import ase
import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import BatchSizes, merge, required_sizes
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.electrostatics import SummationMethod
from mace_scf_jax.models import SelfConsistency, required_inputs
from mace_scf_jax.predict.convergence import (
    NotConverged,
    check_policy,
    report_convergence,
)
from mace_scf_jax.predict.model import Model, Prediction, load_model, split_outputs
from mace_scf_jax.predict.starting_state import state_of_batch
from mace_scf_jax.simulate.warm_start import WarmStart, WarmStarter

INPUT_KEYS = ("total_charge", "external_field", "fermi_level")
"""Entries of ``atoms.info`` that a model reads."""

CHARGED_RESULTS = ("multipoles", "dipole", "electrostatic_energy")
SELF_CONSISTENT_RESULTS = (
    "fermi_level",
    "field_energy",
    "electrostatic_potentials",
    "field_features",
    "scf_status",
    "scf_steps",
    "scf_evaluations",
    "scf_residual",
    "scf_charge_error",
)

EXTRA_ROOM = 0.2
"""Room for more neighbours than an atom of the first geometry has, as a part of them, so that
moving atoms do not outgrow their arrays, which would compile anew. The same for reciprocal
vectors, once there are more of them than at first because the cell changes."""


class MACESCFCalculator(Calculator):
    """Energies, forces, stress and multipoles for ASE.

    ``atoms.info`` holds the inputs ``total_charge`` (e), ``external_field`` (V/Å) and
    ``fermi_level`` (eV); a change of them is noticed. The padded sizes of the compiled function
    only grow, so moving atoms and changing cells rarely recompile. Once the stress has been asked
    for, every calculation has it: a step at constant pressure is one calculation.

    Results: energy, free_energy (eV), forces (eV/Å), stress (eV/Å³, Voigt), and for models with
    charges: charges (e), multipoles (e Å^l; order Q, d_y, d_z, d_x), dipole (e Å; x, y, z),
    electrostatic_energy (eV). Self-consistent models also give the outputs that `Prediction` lists:
    fermi_level, electrostatic_potentials, scf_status, scf_steps, convergence_history (the residual
    of every step), …
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(
        self,
        model: Model | str | Path,
        *,
        scf: SelfConsistency | None = None,
        warm_start: WarmStart | None = None,
        not_converged: NotConverged = "raise",
        sums: SummationMethod | str | None = None,
        **kwargs,
    ) -> None:
        """Make a calculator.

        Args:
            model: a model or the path of its file.
            scf: how the multipoles of a self-consistent model are solved for; None for the way of
                the model. ``SelfConsistency(constant_charge=False)`` keeps the Fermi level of
                ``atoms.info``.
            warm_start: start from the solutions of previous geometries; None to solve every
                geometry by itself, which makes results independent of the past.
            not_converged: what to do if the multipoles are not self-consistent.
            sums: how electrostatic sums are done (see `Model.with_sums`); None for the way of the
                model.
            kwargs: passed on to ASE's ``Calculator``.

        Raises:
            ModelFileError: the file cannot be used.
            ValueError: there is no such policy, or settings of a self-consistent cycle were given
                for a model that has none.
        """
        super().__init__(**kwargs)
        check_policy(not_converged)
        model = (model if isinstance(model, Model) else load_model(model)).with_sums(sums)
        self.model = model if scf is None else dataclasses.replace(model, scf=scf)
        if warm_start is not None and not self.model.is_self_consistent:
            raise ValueError(
                f"warm_start: expected a self-consistent model, found one of the family "
                f"{self.model.settings.family}"
            )
        if self.model.settings.electrostatics is None:
            self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self.not_converged = not_converged
        self._warm_starter = None if warm_start is None else WarmStarter(warm_start)
        self._start: Mapping[str, Any] | None = None
        self._sizes: BatchSizes | None = None
        self._inputs: dict[str, np.ndarray] = {}
        self._with_stress = False

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, inputs in ``info`` and ``arrays`` included."""
        changes = super().check_state(atoms, tol=tol)
        inputs = self._read_inputs(atoms)
        same = inputs.keys() == self._inputs.keys() and all(
            np.array_equal(inputs[key], self._inputs[key]) for key in inputs
        )
        return changes if same else [*changes, "info"]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE.

        Raises:
            DataError: the structure has an element that the model lacks, or cannot be used.
            BoundaryError: its periodicity does not fit the model's electrostatics.
            NotConvergedError: its multipoles are not self-consistent, and the policy is to raise.
        """
        super().calculate(atoms, properties, system_changes)
        structure = self.model.prepare(from_atoms(self.atoms))
        self._with_stress |= "stress" in (properties or ())
        prediction = self._predict(structure, stress=self._with_stress)
        location = structure.configuration.location
        report_convergence([prediction], [location], not_converged=self.not_converged)
        self.results = _results(prediction)
        self._inputs = self._read_inputs(self.atoms)

    def start_from(self, solved: Mapping[str, Any]) -> None:
        """Start the next calculation from given multipoles and Fermi level.

        Args:
            solved: ``multipoles`` [atoms, components] (e Å^l) and ``fermi_level`` (eV) by name:
                a prediction, or the results of a calculator.
        """
        self.reset()
        self._start = solved

    def _predict(self, structure: Structure, *, stress: bool) -> Prediction:
        """Outputs of a structure, from a warm start where there is one."""
        start, self._start = self._start, None
        if start is not None or self._warm_starter is None:
            return self._solve(structure, start, stress=stress)
        return self._warm_starter.solve(
            structure.configuration, lambda guess: self._solve(structure, guess, stress=stress)
        )

    def _solve(
        self, structure: Structure, start: Mapping[str, Any] | None, *, stress: bool
    ) -> Prediction:
        """Outputs of a structure, solved for from a given start."""
        needed = required_sizes([structure], "per_atom")
        if self._sizes is None or not self._sizes.holds(needed):
            if self._sizes is None:
                self._sizes = needed.with_room(EXTRA_ROOM)
            else:
                grown = needed.with_room(EXTRA_ROOM, kvectors=EXTRA_ROOM)
                self._sizes = merge((self._sizes, grown))
        graph = collate([structure], self._sizes, dtype=self.model.dtype, labels=False)
        state = None if start is None else state_of_batch([start], graph)
        if state is not None and "scf_memory" in start:
            state = dataclasses.replace(state, memory=start["scf_memory"])
            state = state.with_memory(graph, self.model.scf)
        outputs = self.model.evaluate(
            self.model.parameters, graph, state, forces=True, stress=stress
        )
        memory = outputs.pop("scf_memory", None)
        (prediction,) = split_outputs(jax.device_get(outputs), graph)
        return prediction | {"scf_memory": memory}

    def _read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """What the model reads besides elements, positions and cell."""
        arrays = required_inputs(self.model.settings)
        return {
            **{key: np.array(atoms.info[key]) for key in INPUT_KEYS if key in atoms.info},
            **{key: np.array(atoms.arrays[key]) for key in arrays if key in atoms.arrays},
        }


def _results(prediction: Prediction) -> dict[str, Any]:
    """The results of a calculator, by ASE's names where it has some."""
    energy = float(prediction["energy"])
    results = {
        "energy": energy,
        "free_energy": energy,
        "forces": np.asarray(prediction["forces"], dtype=np.float64),
    }
    if "stress" in prediction:
        results["stress"] = full_3x3_to_voigt_6_stress(prediction["stress"])
    if "multipoles" in prediction:
        results["charges"] = prediction["multipoles"][:, 0]
    if "scf_history" in prediction:
        history = prediction["scf_history"][: int(prediction["scf_steps"])]
        results["convergence_history"] = history.tolist()
    further = (*CHARGED_RESULTS, *SELF_CONSISTENT_RESULTS)
    return results | {name: prediction[name] for name in further if name in prediction}
