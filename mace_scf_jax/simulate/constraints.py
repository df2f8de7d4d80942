"""Atoms that do not move: constraints of a structure as a mask of coordinates."""

from __future__ import annotations

import itertools

import ase
import numpy as np
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Float

from mace_scf_jax.simulate.settings import SimulationError

DIRECTIONS = "xyz"


def mobile_coordinates(atoms: ase.Atoms) -> Float[np.ndarray, "atoms 3"] | None:
    """1 for every coordinate that moves, 0 for those that constraints fix; None if all move.

    Raises:
        SimulationError: there is a constraint of another kind than `FixAtoms` and `FixCartesian`.
    """
    mobile = np.ones((len(atoms), 3))
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mobile[constraint.index] = 0.0
        elif isinstance(constraint, FixCartesian):
            mobile[constraint.index] *= ~np.asarray(constraint.mask, bool)
        else:
            raise SimulationError(
                f"found the constraint {type(constraint).__name__}; simulations keep FixAtoms and "
                "FixCartesian"
            )
    if not mobile.any():
        raise SimulationError("found only fixed atoms, expected some that move")
    return None if mobile.all() else mobile


def describe_fixed(mobile: np.ndarray | None) -> str:
    """Which atoms are fixed along which directions, such as ``0-47 xyz, 50 z``; or ``none``."""
    if mobile is None:
        return "none"
    words = ["".join(DIRECTIONS[axis] for axis in np.flatnonzero(row == 0.0)) for row in mobile]
    told = []
    for word, group in itertools.groupby(range(len(words)), key=words.__getitem__):
        first, *others = group
        if word:
            told.append(f"{first}-{others[-1]} {word}" if others else f"{first} {word}")
    return ", ".join(told)


def fixed_atoms(text: str, atoms: ase.Atoms) -> FixAtoms:
    """The constraint that a user names by positions, ranges of them, and elements: ``0-47,50,Au``.

    Args:
        atoms: the structure; positions are counted from 0, and ranges include both ends.

    Raises:
        SimulationError: the structure has no such atoms.
    """
    chosen = np.zeros(len(atoms), bool)
    for word in text.replace(" ", "").split(","):
        first, _, last = word.partition("-")
        if first.isdigit() and (last or first).isdigit():
            ends = int(first), int(last or first)
            if not ends[0] <= ends[1] < len(atoms):
                raise SimulationError(
                    f"fixed atoms: found {word!r}, expected positions from 0 to {len(atoms) - 1}"
                )
            chosen[ends[0] : ends[1] + 1] = True
            continue
        of_element = np.array(atoms.get_chemical_symbols()) == word
        if not of_element.any():
            raise SimulationError(
                f"fixed atoms: found {word!r}, expected positions such as 5 or 0-47, or one of the "
                f"elements {', '.join(sorted(set(atoms.get_chemical_symbols())))}"
            )
        chosen |= of_element
    return FixAtoms(np.flatnonzero(chosen))
