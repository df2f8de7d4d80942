"""Every property that a configuration can carry: where it is stored, its shape and its unit."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any, Literal

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from mace_scf_jax.data.errors import DataError

Place = Literal["info", "arrays"]


class Shape(enum.Enum):
    """Shape of a property; the value says what is accepted in a file."""

    SCALAR = "one number"
    VECTOR = "3 numbers (x y z)"
    MATRIX = "9 numbers (3×3, row by row)"
    STRESS = "6 numbers (xx yy zz yz xz xy), 9 numbers or a 3×3 matrix"
    ATOM_SCALAR = "one number per atom"
    ATOM_VECTOR = "3 numbers per atom (x y z)"
    ATOM_MULTIPOLES = "(L + 1)² numbers per atom (Q, d_y, d_z, d_x, ...)"
    ATOM_INTEGER = "one integer per atom"
    GRID = "real and imaginary part on a grid: an array [2, N1, N2, N3]"
    TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Property:
    """One property under its canonical name."""

    name: str
    places: tuple[Place, ...]
    """Where it may be stored: `atoms.info`, `atoms.arrays`."""
    shape: Shape
    unit: str
    missing: float = 0.0
    """What stands for a value that is not there."""

    @functools.cached_property
    def per_atom(self) -> bool:
        """Whether there is one value per atom."""
        return self.shape in _PER_ATOM


_PER_ATOM = {Shape.ATOM_SCALAR, Shape.ATOM_VECTOR, Shape.ATOM_MULTIPOLES, Shape.ATOM_INTEGER}

PROPERTIES: dict[str, Property] = {
    entry.name: entry
    for entry in (
        Property("energy", ("info",), Shape.SCALAR, "eV"),
        Property("forces", ("arrays",), Shape.ATOM_VECTOR, "eV/Å"),
        Property("stress", ("info",), Shape.STRESS, "eV/Å³"),
        Property("virials", ("info",), Shape.STRESS, "eV"),
        Property("dipole", ("info",), Shape.VECTOR, "e Å"),
        Property("polarizability", ("info",), Shape.MATRIX, "e Å²/V"),
        Property("total_charge", ("info",), Shape.SCALAR, "e"),
        Property("total_spin", ("info",), Shape.SCALAR, "1", missing=1.0),  # multiplicity 2S + 1
        Property("fermi_level", ("info",), Shape.SCALAR, "eV"),
        Property("external_field", ("info",), Shape.VECTOR, "V/Å"),
        Property("atomic_multipoles", ("arrays",), Shape.ATOM_MULTIPOLES, "e Å^l"),
        Property("electrostatic_potentials", ("info", "arrays"), Shape.ATOM_SCALAR, "V"),
        Property("charges", ("arrays",), Shape.ATOM_SCALAR, "e"),
        Property("enegs", ("arrays",), Shape.ATOM_SCALAR, "eV/e"),
        Property("hardness", ("arrays",), Shape.ATOM_SCALAR, "eV/e²"),
        Property("molID", ("arrays",), Shape.ATOM_INTEGER, "1"),
        Property("elec_temp", ("info",), Shape.SCALAR, "K"),
        Property("rho_fftn", ("info",), Shape.GRID, "e"),
        Property("head", ("info",), Shape.TEXT, ""),
    )
}
"""All properties by canonical name."""

GRAPH_LABELS: tuple[str, ...] = (
    "energy",
    "stress",
    "virials",
    "dipole",
    "polarizability",
    "total_charge",
    "fermi_level",
    "elec_temp",
)
"""Reference values with one entry per structure in a batch."""

ATOM_LABELS: tuple[str, ...] = (
    "forces",
    "atomic_multipoles",
    "electrostatic_potentials",
    "charges",
    "molID",
)
"""Reference values with one entry per atom in a batch."""

GRAPH_INPUTS: tuple[str, ...] = ("total_charge", "fermi_level", "external_field", "total_spin")
"""Inputs with one entry per structure that a model may ask for."""

ATOM_INPUTS: tuple[str, ...] = ("charges", "enegs", "hardness")
"""Per-atom inputs that a model may ask for."""

BATCH_PROPERTIES: tuple[str, ...] = tuple(
    dict.fromkeys((*GRAPH_INPUTS, *ATOM_INPUTS, *GRAPH_LABELS, *ATOM_LABELS))
)
"""All that go into batches."""


_ROW_SHAPES: dict[Shape, tuple[int, ...]] = {
    Shape.SCALAR: (),
    Shape.VECTOR: (3,),
    Shape.MATRIX: (3, 3),
    Shape.STRESS: (3, 3),
    Shape.ATOM_SCALAR: (),
    Shape.ATOM_VECTOR: (3,),
    Shape.ATOM_INTEGER: (),
    Shape.GRID: (2, 1, 1, 1),
}


def num_multipoles(max_l: int) -> int:
    """Number of multipole components up to and including order `max_l`."""
    return (max_l + 1) ** 2


def row_shape(entry: Property, *, multipoles_max_l: int) -> tuple[int, ...]:
    """Shape of the value of a structure or, for properties of atoms, of one atom."""
    if entry.shape is Shape.ATOM_MULTIPOLES:
        return (num_multipoles(multipoles_max_l),)
    return _ROW_SHAPES[entry.shape]


def zero_value(entry: Property, *, num_atoms: int, multipoles_max_l: int) -> np.ndarray:
    """The value that stands for a missing property, zero for most, in the right shape."""
    row = row_shape(entry, multipoles_max_l=multipoles_max_l)
    dtype = np.int32 if entry.shape is Shape.ATOM_INTEGER else np.float64
    return np.full((num_atoms, *row) if entry.per_atom else row, entry.missing, dtype=dtype)


def to_array(
    entry: Property, value: Any, *, num_atoms: int, multipoles_max_l: int, where: str
) -> np.ndarray:
    """A value from a file as an array of the property's shape.

    Multipoles beyond `multipoles_max_l` are dropped; a one-dimensional array of multipoles counts
    as one column; a stress may be given by 6 numbers in Voigt order.

    Args:
        entry: the property.
        value: what the file holds.
        num_atoms: number of atoms of the configuration.
        multipoles_max_l: highest multipole order to keep.
        where: file, configuration and key, for messages.

    Raises:
        DataError: if the value is not numeric, not finite, or has another shape.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: found {value!r}, expected {entry.shape.value}")
    array = array.astype(np.float64)
    converted = _reshape(entry.shape, array, num_atoms, multipoles_max_l)
    if converted is None:
        expected = entry.shape.value
        if entry.shape is Shape.ATOM_MULTIPOLES:
            columns = num_multipoles(multipoles_max_l)
            expected += f", at least {columns} for multipoles up to l = {multipoles_max_l}"
        if entry.per_atom:
            expected += f", {num_atoms} atoms"
        raise DataError(f"{where}: found an array of shape {array.shape}, expected {expected}")
    if not np.all(np.isfinite(array)):
        raise DataError(f"{where}: found NaN or infinity, expected finite numbers")
    if entry.shape is Shape.ATOM_INTEGER:
        if np.any(converted != np.round(converted)):
            raise DataError(f"{where}: found fractional numbers, expected {entry.shape.value}")
        return converted.astype(np.int32)
    return converted


def _reshape(
    shape: Shape, array: np.ndarray, num_atoms: int, multipoles_max_l: int
) -> np.ndarray | None:
    """The array in the canonical form of `shape`, or None if it does not fit."""
    match shape:
        case Shape.SCALAR if array.size == 1:
            return array.reshape(())
        case Shape.VECTOR if array.size == 3:
            return array.reshape(3)
        case Shape.MATRIX | Shape.STRESS if array.shape in ((9,), (3, 3), (1, 3, 3), (1, 9)):
            return array.reshape(3, 3)
        case Shape.STRESS if array.shape in ((6,), (1, 6)):
            return voigt_6_to_full_3x3_stress(array.reshape(6))
        case Shape.ATOM_SCALAR | Shape.ATOM_INTEGER if array.size == num_atoms:
            return array.reshape(num_atoms)
        case Shape.ATOM_VECTOR if array.shape == (num_atoms, 3):
            return array
        case Shape.ATOM_MULTIPOLES if array.ndim in (1, 2) and array.shape[0] == num_atoms:
            columns = array.reshape(num_atoms, -1)
            needed = num_multipoles(multipoles_max_l)
            return columns[:, :needed] if columns.shape[1] >= needed else None
        case Shape.GRID if array.ndim == 4 and array.shape[0] == 2:
            return array
    return None
