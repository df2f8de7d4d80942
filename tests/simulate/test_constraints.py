"""Which atoms do not move."""

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from mace_scf_jax.simulate.constraints import describe_fixed, fixed_atoms, mobile_coordinates
from mace_scf_jax.simulate.settings import SimulationError

ATOMS = Atoms("Au4OH2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-2,5", [0, 1, 2, 5]), ("Au", [0, 1, 2, 3]), ("O, 0", [0, 4]), ("6", [6])],
)
def test_atoms_are_named_by_position_and_element(text, expected):
    np.testing.assert_array_equal(fixed_atoms(text, ATOMS).index, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7", "found '7', expected positions from 0 to 6"),
        ("3-1", "found '3-1', expected positions"),
        ("Ag", "found 'Ag', expected positions such as 5 or 0-47, or one of the elements Au, H, O"),
        ("0-x", "found '0-x', expected positions such as"),
    ],
)
def test_atoms_that_are_not_there(text, message):
    with pytest.raises(SimulationError, match=message):
        fixed_atoms(text, ATOMS)


def test_constraints_are_a_mask():
    atoms = ATOMS.copy()
    assert mobile_coordinates(atoms) is None
    assert describe_fixed(None) == "none"
    atoms.set_constraint([FixAtoms([0, 1, 2]), FixCartesian([5], mask=(True, False, True))])
    mobile = mobile_coordinates(atoms)
    assert mobile.sum() == 21 - 9 - 2
    assert describe_fixed(mobile) == "0-2 xyz, 5 xz"
