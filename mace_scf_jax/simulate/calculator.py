"""ASE calculator of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import ase
import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import BatchSizes, merge, required_sizes
from mace_scf_jax.models import required_inputs
from mace_scf_jax.simulate.model import Model, load_model, split_outputs

INPUT_KEYS = ("total_charge", "external_field", "fermi_level")
"""Entries of ``atoms.info`` that a model reads."""


class MACESCFCalculator(Calculator):
    """Energies, forces, stress and multipoles for ASE.

    ``atoms.info["external_field"]`` (V/Å) is an input; a change of it is noticed. The padded sizes
    of the compiled function only grow, so moving atoms rarely recompile.

    Results: energy, free_energy (eV), forces (eV/Å), stress (eV/Å³, Voigt), and for models with
    charges: charges (e), multipoles (e Å^l; order Q, d_y, d_z, d_x), dipole (e Å; x, y, z).
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(self, model: Model | str | Path, **kwargs) -> None:
        """Make a calculator.

        Args:
            model: a model or the path of its file.
            kwargs: passed on to ASE's ``Calculator``.

        Raises:
            ModelFileError: the file cannot be used.
        """
        super().__init__(**kwargs)
        self.model = model if isinstance(model, Model) else load_model(model)
        if self.model.settings.electrostatics is None:
            self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self._sizes: BatchSizes | None = None
        self._inputs: dict[str, np.ndarray] = {}

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
        """
        super().calculate(atoms, properties, system_changes)
        structure = self.model.prepare(from_atoms(self.atoms))
        needed = required_sizes([structure], "per_atom")
        if self._sizes is None or not self._sizes.holds(needed):
            grown = needed.rounded()
            self._sizes = grown if self._sizes is None else merge((self._sizes, grown))
        graph = collate([structure], self._sizes, dtype=self.model.dtype, labels=False)
        outputs = self.model.evaluate(
            self.model.parameters, graph, forces=True, stress="stress" in (properties or ())
        )
        (prediction,) = split_outputs(jax.device_get(outputs), graph)

        energy = float(prediction["energy"])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.asarray(prediction["forces"], dtype=np.float64),
        }
        if "stress" in prediction:
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction["stress"])
        if "multipoles" in prediction:
            self.results["multipoles"] = prediction["multipoles"]
            self.results["charges"] = prediction["multipoles"][:, 0]
            self.results["dipole"] = prediction["dipole"]
        self._inputs = self._read_inputs(self.atoms)

    def _read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """What the model reads besides elements, positions and cell."""
        arrays = required_inputs(self.model.settings)
        return {
            **{key: np.array(atoms.info[key]) for key in INPUT_KEYS if key in atoms.info},
            **{key: np.array(atoms.arrays[key]) for key in arrays if key in atoms.arrays},
        }
