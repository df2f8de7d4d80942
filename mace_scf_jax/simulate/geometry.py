"""What a model reads of a structure of ASE."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import ase
import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.cells import electrostatic_cell
from mace_scf_jax.data.properties import GRAPH_INPUTS


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Copies of what a model reads of a structure."""

    numbers: Int[np.ndarray, "atoms"]
    pbc: Bool[np.ndarray, "3"]
    cell: Float[np.ndarray, "3 3"]
    """Å, of the electrostatics: that of a structure without periodic direction is made from the
    positions."""
    positions: Float[np.ndarray, "atoms 3"]
    """Å."""
    inputs: Mapping[str, np.ndarray]
    """Charge, field, … by name, of those that the structure has."""

    def same_system(self, other: Geometry) -> bool:
        """Whether these are the same atoms in the same surroundings, wherever the atoms are."""
        return (
            np.array_equal(self.numbers, other.numbers)
            and np.array_equal(self.pbc, other.pbc)
            and same_inputs(self.inputs, other.inputs)
        )


def read_geometry(atoms: ase.Atoms, inputs: Mapping[str, np.ndarray]) -> Geometry:
    """What a model reads of a structure; not checked.

    Args:
        inputs: from `read_inputs`.
    """
    cell, pbc, positions = np.array(atoms.cell), atoms.pbc.copy(), atoms.positions.copy()
    if len(atoms) and not pbc.any() and np.isfinite(cell).all():
        cell, _ = electrostatic_cell(cell, pbc, positions)
    return Geometry(atoms.numbers.copy(), pbc, cell, positions, inputs)


def read_inputs(
    atoms: ase.Atoms, info: Sequence[str] = GRAPH_INPUTS, arrays: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Copies of the inputs in ``info`` and in ``arrays``, by their keys."""
    inputs = {}
    for stored, keys in ((atoms.info, info), (atoms.arrays, arrays)):
        for key in keys:
            if key in stored:
                inputs[key] = np.array(stored[key])
    return inputs


def same_inputs(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether inputs have the same names and values."""
    # A step compares often: `map` calls nothing of this package for each input.
    return one.keys() == other.keys() and all(
        map(np.array_equal, one.values(), map(other.__getitem__, one))
    )
