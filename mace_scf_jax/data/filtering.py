"""Leaving out configurations with energies or forces that a model should not be fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.configuration_set import ConfigurationSet
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.statistics import interaction_energies


def within_energy(
    catalogue: Catalogue,
    limit: float,
    *,
    atomic_energies: Float[np.ndarray, "elements"],
    elements: Sequence[int],
) -> Bool[np.ndarray, "configurations"]:
    """Which configurations have no interaction energy per atom above a limit, or no energy at all.

    Args:
        catalogue: of the configurations.
        limit: eV/atom.
        atomic_energies: energies of free atoms, eV.
        elements: their atomic numbers.
    """
    energies = interaction_energies(catalogue, atomic_energies, elements)
    return (energies <= limit) | ~catalogue.present["energy"]


def within_forces(members: ConfigurationSet, limit: float) -> Bool[np.ndarray, "configurations"]:
    """Which configurations have no atom with a force above a limit, or no forces at all.

    The largest of N norms lies between sqrt(S / N) and sqrt(S), S being the sum of their squares,
    which the catalogue knows; only configurations where this does not decide are read.

    Args:
        members: the configurations.
        limit: norm of the force on an atom, eV/Å.
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
    """Which configurations pass all limits, and the log line that counts the others.

    Args:
        title: of the set.
        within: for each limit, in words, which configurations are within it; at least one limit.

    Raises:
        DataError: none passes all.
    """
    kept = np.logical_and.reduce(list(within.values()))
    reasons = ", ".join(f"{int(np.sum(~passed))} {limit}" for limit, passed in within.items())
    line = f"{title} set: left out {int(np.sum(~kept))} of {len(kept)} configurations: {reasons}"
    if not kept.any():
        raise DataError(f"{line}; nothing is left")
    return kept, line
