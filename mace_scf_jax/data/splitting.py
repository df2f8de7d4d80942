"""The random split of a training file into training and validation sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mace_scf_jax.data.errors import DataError

_INDICES_IN_LOG = 10


def random_split(count: int, *, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and the validation set, the same as in the PyTorch reference.

    Args:
        count: number of configurations, at least 2.
        fraction: share that goes to validation; at least one configuration does.
        seed: of the shuffle.

    Raises:
        DataError: for a fraction outside (0, 1) or fewer than two configurations.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"valid_fraction: found {fraction}, expected a number between 0 and 1")
    if count < 2:
        raise DataError(
            f"training set: found {count} configuration, expected at least 2 to split off a "
            "validation set; give a valid_file"
        )
    num_train = min(count - int(fraction * count), count - 1)
    indices = list(range(count))
    np.random.default_rng(seed).shuffle(indices)
    return indices[:num_train], indices[num_train:]


def describe_split(
    valid_indices: Sequence[int], *, fraction: float, seed: int, work_dir: Path
) -> str:
    """The log line on a random validation set: its indices if they are few, else their file."""
    line = f"Using random {100 * fraction:.0f}% of training set for validation with "
    if len(valid_indices) < _INDICES_IN_LOG:
        return line + f"following indices: {list(valid_indices)}"
    return line + f"indices saved in: {split_file(seed, work_dir)}"


def save_split(valid_indices: Sequence[int], *, seed: int, work_dir: Path) -> None:
    """Write the indices of a random validation set to the work folder, unless they are few."""
    if len(valid_indices) >= _INDICES_IN_LOG:
        path = split_file(seed, work_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{index}\n" for index in valid_indices))


def split_file(seed: int, work_dir: Path) -> Path:
    """File that holds the indices of a random validation set, one per line."""
    return work_dir / f"valid_indices_{seed}.txt"
