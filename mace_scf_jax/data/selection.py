"""Which configurations of a file are used for what: limits of energies and forces, random split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import ConfigurationSet
from mace_scf_jax.data.statistics import interaction_energies

_INDICES_IN_LOG = 10


def within_energy(
    catalogue: Catalogue,
    limit: float,
    *,
    atomic_energies: Float[np.ndarray, "elements"],
    elements: Sequence[int],
) -> Bool[np.ndarray, "configurations"]:
    """Which configurations have no interaction energy above a limit in eV/atom, or no energy."""
    energies = interaction_energies(catalogue, atomic_energies, elements)
    return (energies <= limit) | ~catalogue.present["energy"]


def within_forces(members: ConfigurationSet, limit: float) -> Bool[np.ndarray, "configurations"]:
    """Which configurations have no atom with a force above a limit in eV/Å, or no forces at all.

    The largest of N norms lies between sqrt(S / N) and sqrt(S), S being the sum of their squares,
    which the catalogue knows; only configurations where this does not decide are read.
    """
    catalogue = members.catalogue
    upper = np.sqrt(catalogue.squared_forces)
    lower = upper / np.sqrt(catalogue.num_atoms)
    kept = (upper <= limit) | ~catalogue.present["forces"]
    for row in np.flatnonzero(~kept & (lower <= limit)).tolist():
        norms = np.linalg.norm(members[row].values["forces"], axis=1)
        kept[row] = norms.max() <= limit
    return kept


def within_all(
    title: str, within: Mapping[str, Bool[np.ndarray, "configurations"]]
) -> tuple[Bool[np.ndarray, "configurations"], str]:
    """Which configurations of a set pass all limits, and the log line that counts the others.

    There is at least one limit; each is given in words, with the configurations that are within.

    Raises:
        DataError: none passes all.
    """
    kept = np.logical_and.reduce(list(within.values()))
    reasons = ", ".join(f"{int(np.sum(~passed))} {limit}" for limit, passed in within.items())
    line = f"{title} set: left out {int(np.sum(~kept))} of {len(kept)} configurations: {reasons}"
    if not kept.any():
        raise DataError(f"{line}; nothing is left")
    return kept, line


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


def three_way_split(
    members: Sequence[int], *, valid_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[int]]:
    """Members to train, validate and test with, each in their order: by "train", "valid", "test".

    Args:
        members: at least as many as there are parts.
        valid_fraction: share for validation; at least one is, unless it is 0.
        test_fraction: share for tests, likewise.
        seed: of the shuffle.

    Raises:
        DataError: the shares leave none to train with.
    """
    shares = {"valid": valid_fraction, "test": test_fraction}
    if not (all(0.0 <= share < 1.0 for share in shares.values()) and sum(shares.values()) < 1.0):
        raise DataError(
            f"shares: found {valid_fraction} and {test_fraction}, expected numbers from 0 that add "
            "up to less than 1"
        )
    sizes = {
        name: max(1, round(share * len(members))) if share else 0 for name, share in shares.items()
    }
    if sum(sizes.values()) >= len(members):
        raise DataError(
            f"found {len(members)} structures, expected more than the {sum(sizes.values())} to "
            "validate and test with"
        )
    left = np.random.default_rng(seed).permutation(members).tolist()
    parts = {}
    for name, size in sizes.items():
        parts[name], left = sorted(left[:size]), left[size:]
    return {"train": sorted(left), **parts}


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
