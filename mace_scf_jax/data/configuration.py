"""One labelled structure, made from an ASE Atoms object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ase
import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.cells import CellRule, electrostatic_cell
from mace_scf_jax.data.errors import NO_FILE, DataError, Location
from mace_scf_jax.data.keys import PREDICTION_KEYS, KeySpecification
from mace_scf_jax.data.properties import PROPERTIES, Place, Shape, to_array, zero_value

DEFAULT_CONFIG_TYPE = "Default"
ISOLATED_ATOM = "IsolatedAtom"
NEEDS_A_PERIOD = frozenset({"stress", "virials"})
"""Labels that have no meaning, and so no weight, in structures without periodic directions."""
NO_LENGTH = 1e-6
"""Å; components of lattice vectors below this are rounding."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One structure with its reference values and their weights.

    `values` holds every numeric property under its canonical name, in the shape and unit of the
    property table; what is missing is zero, a multiplicity 1. `weights` holds a scalar for each
    property (for the dipole 3 numbers), zero for the stress of a structure without periodic
    directions, and wherever there is no reference value: also for properties that no key
    is mapped to, which the PyTorch reference gives weight 1 against zeros.
    """

    atomic_numbers: Int[np.ndarray, "atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    """Positions as in the file, Å, not wrapped."""
    cell: Float[np.ndarray, "3 3"]
    """Cell for electrostatics and volume, Å (see `electrostatic_cell`)."""
    pbc: Bool[np.ndarray, "3"]
    values: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    present: frozenset[str]
    """Canonical names of the properties that the structure came with."""
    config_weight: float
    config_type: str
    location: Location
    cell_rule: CellRule = CellRule.KEPT
    head: int | None = None
    """Place of its level of theory among several; None where there is a single one."""

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)


def from_atoms(
    atoms: ase.Atoms,
    *,
    keys: KeySpecification = PREDICTION_KEYS,
    multipoles_max_l: int = 1,
    config_type_weights: Mapping[str, float] | None = None,
    location: Location = NO_FILE,
    read_calculator: bool = False,
) -> Configuration:
    """The configuration described by an Atoms object.

    Args:
        atoms: structure; properties in `atoms.info` and `atoms.arrays`.
        keys: which key holds which property. By default only the inputs of a model are read
            (`total_charge`, `total_spin`, `fermi_level`, `external_field`, `charges`, `enegs`,
            `hardness`).
        multipoles_max_l: highest order of reference multipoles to keep.
        config_type_weights: factor on the weight of a configuration by its `config_type`.
        location: where the structure came from, for messages.
        read_calculator: also look for properties among the results of an attached calculator,
            where ASE's reader puts `energy`, `forces`, `stress`, `dipole` and `charges`.

    Raises:
        DataError: for values of a wrong shape or type, NaN or infinite values, wrong weights, or a
            cell that contradicts the periodic directions.
    """
    if len(atoms) == 0:
        raise DataError(f"{location}: found no atoms")
    positions = np.array(atoms.positions, dtype=np.float64)
    if not np.all(np.isfinite(positions)):
        raise DataError(f"{location}: found NaN or infinity among the positions")
    pbc = np.array(atoms.pbc, dtype=bool)
    try:
        cell, rule = electrostatic_cell(np.array(atoms.cell, dtype=np.float64), pbc, positions)
    except DataError as error:
        raise DataError(f"{location}: {error}") from None

    head, own_keys = keys.head_of(atoms, location)
    factors = {} if head is None else keys.heads[head].loss_weights
    keys = own_keys
    values, weights, present = {}, {}, set()
    for name, entry in PROPERTIES.items():
        if entry.shape is Shape.TEXT:
            continue
        sizes = {"num_atoms": len(atoms), "multipoles_max_l": multipoles_max_l}
        found = find_value(atoms, keys, name, location, read_calculator=read_calculator)
        if found is None:
            values[name] = zero_value(entry, **sizes)
            weights[name] = np.zeros(3 if name == "dipole" else ())
        else:
            where = f"{location}, key {keys.key_of(name)!r} ({name})"
            values[name] = to_array(entry, found, where=where, **sizes)
            weights[name] = property_weight(atoms, name, location)
            if name in factors:
                weights[name] = np.asarray(factors[name] * weights[name])
            if name in NEEDS_A_PERIOD and not pbc.any():
                weights[name] = np.zeros(())
            present.add(name)
    config_type = str(atoms.info.get("config_type", DEFAULT_CONFIG_TYPE))
    return Configuration(
        atomic_numbers=np.array(atoms.numbers, dtype=np.int32),
        positions=positions,
        cell=cell,
        pbc=pbc,
        values=values,
        weights=weights,
        present=frozenset(present),
        config_weight=float(_weight(atoms, "config_weight", location))
        * (config_type_weights or {}).get(config_type, 1.0),
        config_type=config_type,
        location=location,
        cell_rule=rule,
        head=head,
    )


def find_value(
    atoms: ase.Atoms,
    keys: KeySpecification,
    name: str,
    location: Location = NO_FILE,
    *,
    read_calculator: bool,
) -> Any | None:
    """What an Atoms object holds for a property, or None.

    Raises:
        DataError: it holds two values, under the key and under the name of the property.
    """
    key = keys.key_of(name)
    if key is None:
        return None
    place: Place = "info" if name in keys.info_keys else "arrays"
    stored = atoms.info if place == "info" else atoms.arrays
    if name in keys.plain and name in stored:
        if key in stored and not np.array_equal(stored[key], stored[name]):
            raise DataError(
                f"{location}: found {name} twice, {key}={stored[key]!r} by the key of the training "
                f"and {name}={stored[name]!r}; remove one, or say which by keys={{{name!r}: …}}"
            )
        return stored[name]
    if key in stored:
        return stored[key]
    if read_calculator and atoms.calc is not None:
        return atoms.calc.results.get(key)
    return None


def property_weight(atoms: ase.Atoms, name: str, location: Location) -> np.ndarray:
    """Weight of a property that a structure has a value for, 1 unless it comes with another.

    A dipole has one for each Cartesian component. Along periodic directions it has no meaning: the
    default is 0 for the components that a periodic lattice vector has.

    Raises:
        DataError: if the weight is negative, not finite, or of a wrong shape.
    """
    key = f"config_{name}_weight"
    if name != "dipole":
        return _weight(atoms, key, location)
    if key not in atoms.info:
        periodic = np.abs(np.array(atoms.cell)[atoms.pbc])
        return 1.0 - np.any(periodic > NO_LENGTH, axis=0)
    weight = np.asarray(atoms.info[key])
    if weight.shape != (3,):
        raise DataError(
            f"{location}: {key} must be a 3-vector, one weight for each component; found "
            f"{atoms.info[key]!r} of shape {weight.shape}"
        )
    return _checked_weight(weight, key, location)


def _weight(atoms: ase.Atoms, key: str, location: Location) -> np.ndarray:
    """A scalar weight from `atoms.info`, 1 where there is none."""
    weight = np.asarray(atoms.info.get(key, 1.0))
    if weight.size != 1:
        raise DataError(
            f"{location}: {key} must be one number; found {atoms.info[key]!r} of shape "
            f"{weight.shape}"
        )
    return _checked_weight(weight.reshape(()), key, location)


def _checked_weight(weight: np.ndarray, key: str, location: Location) -> np.ndarray:
    """A weight as floats, refused unless finite and not negative."""
    if weight.dtype.kind not in "iuf" or not np.all(np.isfinite(weight)) or np.any(weight < 0):
        raise DataError(
            f"{location}: {key} must be finite and not negative; found {weight.tolist()!r}"
        )
    return weight.astype(np.float64)
