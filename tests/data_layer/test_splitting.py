from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.selection import describe_split, random_split, save_split


def test_split_is_that_of_the_reference() -> None:
    """The reference shuffles a list of indices with NumPy and cuts it."""
    expected = list(range(200))
    np.random.default_rng(5).shuffle(expected)
    train, valid = random_split(200, fraction=0.25, seed=5)
    assert train + valid == expected
    assert (len(train), len(valid)) == (150, 50)


def test_split_does_not_change_between_versions() -> None:
    assert random_split(8, fraction=0.3, seed=123) == ([0, 6, 4, 2, 7, 3], [1, 5])


@pytest.mark.parametrize(
    ("count", "fraction", "num_valid"), [(2, 0.1, 1), (10, 0.05, 1), (10, 0.39, 3), (3, 0.99, 2)]
)
def test_at_least_one_configuration_validates(count: int, fraction: float, num_valid: int) -> None:
    train, valid = random_split(count, fraction=fraction, seed=0)
    assert len(valid) == num_valid
    assert sorted(train + valid) == list(range(count))


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [
        (10, 0.0, "valid_fraction: found 0.0"),
        (10, 1.0, "valid_fraction: found 1.0"),
        (1, 0.5, "expected at least 2"),
    ],
)
def test_impossible_splits_are_refused(count: int, fraction: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        random_split(count, fraction=fraction, seed=0)


def test_few_indices_are_logged_and_many_are_written(tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    few, many = [4, 2], list(range(10, 0, -1))
    path = work_dir / "valid_indices_7.txt"
    line = "Using random 25% of training set for validation with "
    options = {"fraction": 0.25, "seed": 7, "work_dir": work_dir}
    assert describe_split(few, **options) == line + "following indices: [4, 2]"
    assert describe_split(many, **options) == line + f"indices saved in: {path}"
    save_split(few, seed=7, work_dir=work_dir)
    assert not work_dir.exists()
    save_split(many, seed=7, work_dir=work_dir)
    assert path.read_text() == "10\n9\n8\n7\n6\n5\n4\n3\n2\n1\n"
