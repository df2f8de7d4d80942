from __future__ import annotations

import numpy as np
import pytest

from mace_scf_jax.data.cells import CellRule, electrostatic_cell, volume
from mace_scf_jax.data.errors import DataError

OPEN = np.zeros(3, dtype=bool)
POINT = np.zeros((1, 3))


def test_missing_cell_becomes_the_smallest_open_cell() -> None:
    cell, rule = electrostatic_cell(np.zeros((3, 3)), OPEN, POINT)
    np.testing.assert_array_equal(cell, 30.0 * np.eye(3))
    assert rule is CellRule.RAISED


def test_only_short_diagonal_elements_are_raised() -> None:
    given = np.array([[10.0, 1.0, 0.0], [0.0, 40.0, 0.0], [0.0, 2.0, 29.0]])
    cell, rule = electrostatic_cell(given, OPEN, POINT)
    np.testing.assert_array_equal(cell, [[30.0, 1.0, 0.0], [0.0, 40.0, 0.0], [0.0, 2.0, 30.0]])
    assert rule is CellRule.RAISED
    assert given[0, 0] == 10.0


def test_large_open_cell_is_kept() -> None:
    given = np.diag([40.0, 35.0, 30.0])
    cell, rule = electrostatic_cell(given, OPEN, np.array([[0.0, 0, 0], [20.0, 17.5, 15.0]]))
    np.testing.assert_array_equal(cell, given)
    assert rule is CellRule.KEPT


def test_cell_below_twice_the_extent_becomes_a_cube() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [10.0, 21.0, 3.0]])
    cell, rule = electrostatic_cell(np.diag([50.0, 41.0, 50.0]), OPEN, positions)
    np.testing.assert_array_equal(cell, 42.0 * np.eye(3))
    assert rule is CellRule.CUBE


def test_open_cell_that_loses_its_volume_becomes_a_cube() -> None:
    swapped = np.array([[0.0, 30.0, 0.0], [30.0, 0.0, 0.0], [0.0, 0.0, 30.0]])
    cell, rule = electrostatic_cell(swapped, OPEN, np.array([[0.0, 0, 0], [1.0, 2.0, 3.0]]))
    np.testing.assert_array_equal(cell, 30.0 * np.eye(3))
    assert rule is CellRule.CUBE


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 1, 0)])
def test_cell_with_a_periodic_direction_is_unchanged(pbc: tuple[int, int, int]) -> None:
    given = np.diag([3.0, 4.0, 5.0])
    cell, rule = electrostatic_cell(given, np.array(pbc, dtype=bool), np.eye(3) * 50.0)
    np.testing.assert_array_equal(cell, given)
    assert rule is CellRule.KEPT


def test_left_handed_cell_is_accepted_with_positive_volume() -> None:
    given = np.diag([3.0, 4.0, -5.0])
    cell, _ = electrostatic_cell(given, np.ones(3, dtype=bool), POINT)
    assert volume(cell) == pytest.approx(60.0, rel=1e-14)


@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        (np.diag([3.0, 3.0, 0.0]), (1, 1, 1), "zero vector for direction c, .*pbc TTT"),
        (np.zeros((3, 3)), (0, 1, 0), "zero vector for direction b"),
        (np.ones((3, 3)), (1, 1, 0), "linearly dependent"),
        (np.diag([3.0, np.nan, 3.0]), (0, 0, 0), "NaN or infinity"),
    ],
)
def test_impossible_cells_are_refused(
    cell: np.ndarray, pbc: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        electrostatic_cell(cell, np.array(pbc, dtype=bool), POINT)


def test_slab_without_a_vector_along_its_open_direction_is_accepted() -> None:
    given = np.diag([3.0, 3.0, 0.0])
    cell, _ = electrostatic_cell(given, np.array([True, True, False]), POINT)
    np.testing.assert_array_equal(cell, given)
