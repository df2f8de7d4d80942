from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list as matscipy_neighbour_list

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.structure import neighbour_list


def pairs(senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray) -> list[tuple]:
    return sorted(
        zip(senders.tolist(), receivers.tolist(), map(tuple, shifts.tolist()), strict=True)
    )


def expected_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> list[tuple]:
    found = matscipy_neighbour_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    return pairs(*found)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_atoms=st.integers(1, 10),
    edge=st.floats(1.0, 6.0),
    cutoff=st.floats(0.5, 5.0),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_pairs_equal_those_of_matscipy(
    seed: int, num_atoms: int, edge: float, cutoff: float, pbc: tuple[bool, bool, bool]
) -> None:
    rng = np.random.default_rng(seed)
    cell = edge * rng.normal(size=(3, 3))
    assume(abs(np.linalg.det(cell)) > 0.3 * edge**3)
    positions = rng.uniform(-8.0, 8.0, size=(num_atoms, 3))
    flags = np.array(pbc)
    assert pairs(*neighbour_list(positions, cell, flags, cutoff)) == expected_pairs(
        positions, cell, flags, cutoff
    )


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (2.0 * np.eye(3), (1, 1, 1)),
        (np.array([[2.0, 0, 0], [1.9, 1.0, 0], [0.5, 0.9, 1.5]]), (1, 1, 1)),
        (np.diag([2.0, 3.0, -2.5]), (1, 1, 1)),
        (np.array([[2.0, 0, 0], [1.5, 2.0, 0], [0.1, 0.2, 9.0]]), (1, 1, 0)),
        (np.array([[1.5, 0.4, 0], [0, 2.0, 0], [0, 0, 9.0]]), (0, 1, 0)),
    ],
)
def test_small_and_skewed_cells_with_several_images(
    cell: np.ndarray, pbc: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(7)
    positions, flags = rng.uniform(0.0, 2.0, size=(3, 3)), np.array(pbc, dtype=bool)
    found = neighbour_list(positions, cell, flags, 5.0)
    assert np.abs(found[2]).max() >= 2
    assert pairs(*found) == expected_pairs(positions, cell, flags, 5.0)


def test_one_atom_sees_its_images_but_not_itself() -> None:
    senders, receivers, shifts = neighbour_list(
        np.array([[0.3, 0.4, 0.5]]), 2.0 * np.eye(3), np.ones(3, dtype=bool), 2.1
    )
    assert senders.tolist() == receivers.tolist() == [0] * 6
    assert sorted(map(tuple, shifts.tolist())) == sorted(
        [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    )


def test_vectors_follow_the_convention_and_edges_are_sorted_by_receiver() -> None:
    rng = np.random.default_rng(3)
    cell = 4.0 * np.eye(3) + rng.uniform(-1, 1, size=(3, 3))
    positions = rng.uniform(-9.0, 9.0, size=(6, 3))
    senders, receivers, shifts = neighbour_list(positions, cell, np.ones(3, dtype=bool), 4.5)
    vectors = positions[receivers] - positions[senders] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    assert len(distances) > 100
    assert distances.max() <= 4.5
    assert distances.min() > 0.0
    assert np.all(np.diff(receivers) >= 0)
    assert senders.dtype == receivers.dtype == shifts.dtype == np.int32


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 1, 0), (1, 0, 0)])
def test_open_directions_need_no_lattice_vector(pbc: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    flags = np.array(pbc, dtype=bool)
    positions = rng.uniform(-3.0, 3.0, size=(8, 3))
    cell = 4.0 * np.eye(3) * flags[:, None]
    found = neighbour_list(positions, cell, flags, 4.0)
    assert len(found[0]) > 10
    assert pairs(*found) == expected_pairs(positions, 4.0 * np.eye(3), flags, 4.0)


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 1)])
def test_place_along_open_directions_does_not_matter(pbc: tuple[int, int, int]) -> None:
    positions = np.random.default_rng(2).uniform(0.0, 4.0, size=(8, 3))
    flags = np.array(pbc, dtype=bool)
    cell = np.array([[4.0, 0.5, 0.0], [0.0, 4.0, 0.0], [0.0, 1.0, 4.0]])
    expected = neighbour_list(positions, cell, flags, 3.0)
    assert len(expected[0]) > 10
    for offset in (-1e3, 1e3):
        found = neighbour_list(positions + offset, cell, flags, 3.0)
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_array_equal(first, second)


def test_structure_without_pairs() -> None:
    found = neighbour_list(np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool), 5.0)
    assert [len(part) for part in found] == [0, 0, 0]
    assert found[2].shape == (0, 3)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_cutoff_must_be_positive(cutoff: float) -> None:
    with pytest.raises(DataError, match="expected a positive length"):
        neighbour_list(np.zeros((1, 3)), np.eye(3), np.zeros(3, dtype=bool), cutoff)
