from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reciprocal import half_space_indices

from .builders import REFERENCE

FILES = sorted((REFERENCE / "electrostatics").glob("*.npz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_number_of_vectors_equals_the_reference(path) -> None:
    data = np.load(path)
    cutoff = json.loads(str(data["meta"])).get("kspace_cutoff")
    if cutoff is None:
        assert path.stem.startswith("realspace")
        return
    found = [len(half_space_indices(cell, cutoff)) for cell in data["in_cell"]]
    # The reference counts k = 0 as well.
    assert [count + 1 for count in found] == data["out_num_k_half_space"].tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), edge=st.floats(2.0, 12.0), cutoff=st.floats(0.3, 3.0))
def test_half_space_and_its_mirror_are_the_whole_sphere(
    seed: int, edge: float, cutoff: float
) -> None:
    cell = edge * np.random.default_rng(seed).normal(size=(3, 3))
    assume(abs(np.linalg.det(cell)) > 0.3 * edge**3)
    indices = half_space_indices(cell, cutoff)
    both = np.concatenate([indices, -indices])
    found = set(map(tuple, both.tolist()))
    assert len(found) == len(both)

    # Brute force with a bound that follows from the smallest reciprocal direction instead.
    reciprocal = 2.0 * np.pi * np.linalg.inv(cell).T
    bound = int(cutoff / np.linalg.svd(reciprocal, compute_uv=False).min()) + 1
    assume(bound <= 40)
    grid = np.arange(-bound, bound + 1)
    candidates = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(candidates @ reciprocal, axis=1)
    expected = set(map(tuple, candidates[(lengths > 0.0) & (lengths <= cutoff)].tolist()))
    assert found == expected


def test_first_non_zero_index_is_positive_and_order_is_lexicographic() -> None:
    indices = half_space_indices(np.diag([7.0, 8.0, 9.0]), 2.0)
    first = indices[np.arange(len(indices)), np.argmax(indices != 0, axis=1)]
    assert np.all(first > 0)
    assert indices.tolist() == sorted(indices.tolist())
    assert indices.dtype == np.int32


def test_handedness_does_not_matter() -> None:
    cell = np.array([[7.0, 1.0, 0.0], [0.0, 8.0, 0.5], [0.3, 0.0, 9.0]])
    assert len(half_space_indices(cell, 2.0)) == len(half_space_indices(cell[[1, 0, 2]], 2.0))


def test_no_vector_below_a_small_cutoff() -> None:
    assert half_space_indices(3.0 * np.eye(3), 0.1).shape == (0, 3)


def test_equal_cells_share_one_read_only_array() -> None:
    indices = half_space_indices(30.0 * np.eye(3), 1.0)
    assert half_space_indices(30.0 * np.eye(3), 1.0) is indices
    with pytest.raises(ValueError, match="read-only"):
        indices[0] = 0


@pytest.mark.parametrize(
    "cell", [np.zeros((3, 3)), np.diag([3.0, 3.0, 0.0]), np.ones((3, 3)), np.nan * np.eye(3)]
)
def test_cell_without_volume_is_refused(cell: np.ndarray) -> None:
    with pytest.raises(DataError, match="no volume"):
        half_space_indices(cell, 1.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.inf, np.nan])
def test_cutoff_must_be_positive_and_finite(cutoff: float) -> None:
    with pytest.raises(DataError, match="reciprocal cutoff"):
        half_space_indices(np.eye(3), cutoff)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), largest=st.floats(0.01, 0.3))
def test_one_set_of_indices_serves_all_cells_within_a_strain(seed: int, largest: float) -> None:
    rng = np.random.default_rng(seed)
    cell = 6.0 * np.eye(3) + rng.uniform(-1.5, 1.5, size=(3, 3))
    fixed = set(map(tuple, half_space_indices(cell, 1.5, largest_strain=largest).tolist()))
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    strain = axes @ np.diag(rng.choice([-largest, 0.0, largest], size=3)) @ axes.T
    own = half_space_indices(cell @ (np.eye(3) + strain), 1.5)
    assert set(map(tuple, own.tolist())) <= fixed


@pytest.mark.parametrize("strain", [-0.1, 1.0, float("nan")])
def test_impossible_range_of_cells(strain: float) -> None:
    with pytest.raises(DataError, match="largest strain: found"):
        half_space_indices(np.eye(3), 1.5, largest_strain=strain)
