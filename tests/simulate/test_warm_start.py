"""Guesses from previous geometries: exact on smooth paths, refused elsewhere, checked at times."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tiny_models import assert_close, molecule, periodic

from mace_scf_jax.simulate import StateNotUniqueWarning, WarmStart
from mace_scf_jax.simulate.geometry import read_geometry, read_inputs
from mace_scf_jax.simulate.warm_start import WarmStarter

RESPONSE = np.random.default_rng(1).normal(size=(4, 3))
STARTS = []


def solve_at(atoms, branch=0.0, fails=False):
    """A solver whose solution is a linear function of the positions; it records its starts."""

    def solve(start):
        STARTS.append(start)
        is_warm = start is not None
        return {
            "multipoles": (atoms.positions - 1.0) @ RESPONSE.T,
            "fermi_level": np.sum(atoms.positions),
            "energy": 5.0 * branch if is_warm else 0.0,
            "converged": not (is_warm and fails),
        }

    return solve


def visit(starter, atoms, **changes):
    """Outputs at a geometry, and the starts of the searches that gave them."""
    STARTS.clear()
    outputs = starter.solve(read_geometry(atoms, read_inputs(atoms)), solve_at(atoms, **changes))
    return outputs, list(STARTS)


def displaced(atoms, by):
    moved = atoms.copy()
    moved.info = dict(atoms.info)
    moved.positions += by
    return moved


@pytest.mark.parametrize("make", [molecule, periodic])
def test_a_smooth_path_is_extrapolated(make):
    rng = np.random.default_rng(0)
    velocity, acceleration = rng.normal(scale=0.01, size=(2, 5, 3))
    starter = WarmStarter(WarmStart(num_geometries=3))
    for time in range(6):
        atoms = displaced(make(), time * velocity + 0.3 * time**2 * acceleration)
        if time == 4:
            atoms.positions[2] += atoms.cell[0] * atoms.pbc[0]  # another image of an atom
        outputs, starts = visit(starter, atoms)
        assert (starts == [None]) == (time == 0)
        if time == 3:
            assert_close(starts[0]["multipoles"], outputs["multipoles"], 1e-9)
            assert_close(starts[0]["fermi_level"], outputs["fermi_level"], 1e-9)


def test_the_latest_solution_as_it_is():
    starter = WarmStarter(WarmStart(num_geometries=1))
    first, _ = visit(starter, molecule())
    _, (start,) = visit(starter, displaced(molecule(), 0.01))
    np.testing.assert_array_equal(start["multipoles"], first["multipoles"])
    assert start["fermi_level"] == first["fermi_level"]


def test_the_same_geometry_twice_counts_once():
    starter = WarmStarter(WarmStart(num_geometries=2))
    for step in (0, 1, 1, 2):
        atoms = displaced(molecule(), np.outer(np.arange(5.0), [0.01, 0.0, 0.0]) * step)
        outputs, starts = visit(starter, atoms)
    assert_close(starts[0]["multipoles"], outputs["multipoles"], 1e-9)


@pytest.mark.parametrize("what", ["total_charge", "external_field", "fermi_level"])
def test_other_conditions_start_cold(what):
    starter = WarmStarter(WarmStart())
    visit(starter, molecule())
    other = molecule()
    other.info[what] = 0.5 * np.ones(3) if what == "external_field" else 0.5
    assert visit(starter, other)[1] == [None]
    assert visit(starter, other)[1] != [None]
    assert visit(starter, molecule())[1] == [None]


def test_other_atoms_and_far_places_start_cold():
    starter = WarmStarter(WarmStart())
    visit(starter, molecule())
    other = molecule()
    other.symbols[0] = "H"
    assert visit(starter, other)[1] == [None]
    assert visit(starter, other[:4])[1] == [None]
    assert visit(starter, displaced(other[:4], [[0.6, 0, 0], [0] * 3, [0] * 3, [0] * 3]))[1] == [
        None
    ]
    crystal = periodic()
    visit(starter, crystal)
    crystal.pbc = (True, True, False)
    assert visit(starter, crystal)[1] == [None]


def test_a_guess_that_fails_is_not_the_last_word():
    starter = WarmStarter(WarmStart())
    visit(starter, molecule())
    outputs, starts = visit(starter, displaced(molecule(), 0.01), fails=True)
    assert len(starts) == 2
    assert starts[1] is None
    assert outputs["converged"]


def test_a_second_solution_is_noticed_and_left():
    starter = WarmStarter(WarmStart(check_every=3))
    for step in range(8):
        atoms = displaced(molecule(), 0.01 * step)
        if step == 5:
            with pytest.warns(StateNotUniqueWarning, match=r"calculation 6: .* \+1\.0e-03 eV per"):
                outputs, starts = visit(starter, atoms, branch=1e-3)
            assert outputs["energy"] == 0.0
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outputs, starts = visit(starter, atoms, branch=1e-3 if step not in (2,) else 1e-8)
        assert len(starts) == (2 if step in (2, 5) else 1), step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_geometries": 0}, "num_geometries: expected 1 or more, found 0"),
        ({"check_every": 0}, "check_every: expected 1 or more, found 0"),
        ({"check_tolerance": -1.0}, "check_tolerance: expected a positive number, found -1.0"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        WarmStart(**changes)
