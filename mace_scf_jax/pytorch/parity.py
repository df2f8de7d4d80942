"""Comparison of an imported model with PyTorch, on structures of the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np

from mace_scf_jax.predict.model import Model


@dataclasses.dataclass(frozen=True)
class Parity:
    """Deviations from PyTorch for one structure."""

    formula: str
    num_atoms: int
    energy: float
    """Absolute deviation of the energy in eV."""
    forces: float
    """Largest deviation of a force component in eV/Å."""
    largest_force: float
    """Largest force component of PyTorch in eV/Å."""

    def passes(self, tolerance: float) -> bool:
        """Whether energy per atom (eV) and forces (eV/Å) deviate by at most the tolerance."""
        return self.energy <= tolerance * self.num_atoms and self.forces <= tolerance


def compare_with_torch(
    model: Model, source: str | Path, structures: Sequence[ase.Atoms]
) -> list[Parity]:
    """Deviations of a model from the PyTorch module that it was imported from.

    Args:
        model: the imported model.
        source: file of the module (``torch.save`` of a `MACE` or `ScaleShiftMACE` of mace-torch).
        structures: to predict.

    Raises:
        TorchModelError: PyTorch or mace-torch is absent, or the file holds something else.
        DataError: a structure cannot be used.
    """
    from mace_scf_jax.pytorch.module import torch_predictions

    predictions = model.predict(list(structures))
    expected = torch_predictions(Path(source), list(structures))
    return [
        Parity(
            formula=atoms.get_chemical_formula(),
            num_atoms=len(atoms),
            energy=float(np.abs(ours["energy"] - theirs["energy"])),
            forces=float(np.max(np.abs(ours["forces"] - theirs["forces"]))),
            largest_force=float(np.max(np.abs(theirs["forces"]))),
        )
        for atoms, ours, theirs in zip(structures, predictions, expected, strict=True)
    ]
