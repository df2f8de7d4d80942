"""Whether pairs of atoms that come close still repel each other after fine-tuning.

Data of equilibrium structures do not show short distances, so training may undo what the start
model knows of them; dynamics then find the hole. Pairs of all elements of the data are scanned.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable

import ase
import jax
import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mace_scf_jax.boundary import BoundaryError
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models import ModelSettings
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.optimise.parameter_groups import Parameters

logger = logging.getLogger(__name__)

DISTANCES = np.linspace(0.3, 0.7, 21)
"""In units of the sum of the covalent radii; bonds are longer."""
SMALLEST_FALL = 0.01
"""In eV: by which the energy falls between two distances that attract."""

Holes = dict[tuple[int, int], float]
"""Distance in Å below which a pair attracts, of those that do, by atomic numbers."""


def attracting_pairs(
    settings: ModelSettings, parameters: Parameters, elements: Iterable[int]
) -> Holes:
    """Scan all pairs of some elements at distances shorter than bonds, by the first head.

    Args:
        settings: of the model.
        parameters: of the model.
        elements: atomic numbers.

    Raises:
        DataError: the model needs inputs that pairs do not have.
        BoundaryError: it does not know open structures.
    """
    model = Model(settings, jax.tree.map(np.asarray, parameters))
    model = model.using(head=settings.heads[0]) if settings.heads else model
    pairs = list(itertools.combinations_with_replacement(sorted(elements), 2))
    lengths = [DISTANCES * (covalent_radii[a] + covalent_radii[b]) for a, b in pairs]
    dimers = [
        model.prepare(from_atoms(ase.Atoms(pair, [[0.0, 0.0, 0.0], [0.0, 0.0, length]])))
        for pair, of_pair in zip(pairs, lengths, strict=True)
        for length in of_pair
    ]
    found = model.predict_structures(dimers, forces=False, not_converged="ignore")
    energies = np.array([float(it["energy"]) for it in found]).reshape(len(pairs), -1)
    holes = {}
    for pair, of_pair, curve in zip(pairs, lengths, energies, strict=True):
        attracts = np.flatnonzero(np.diff(curve) > SMALLEST_FALL)
        if len(attracts):
            holes[pair] = float(of_pair[attracts[-1] + 1])
    return holes


def compare_pairs(
    settings: ModelSettings, before: Parameters, after: Parameters, elements: Iterable[int]
) -> None:
    """Tell which pairs attract each other at short distances after training, and did not before.

    Args:
        settings: of the model.
        before: its parameters before the first step.
        after: and at the end.
        elements: atomic numbers.
    """
    elements = tuple(elements)
    try:
        then, now = (attracting_pairs(settings, it, elements) for it in (before, after))
    except (DataError, BoundaryError) as error:
        logger.info("Pairs of atoms at short distances are not looked at: %s", error)
        return
    worse = {pair: hole for pair, hole in now.items() if hole > then.get(pair, 0.0)}
    if not worse:
        logger.info(
            "Pairs of atoms at short distances (%g to %g of the sum of covalent radii) repel each "
            "other as before training",
            *(DISTANCES[0], DISTANCES[-1]),
        )
        return
    told = (
        f"{chemical_symbols[a]}-{chemical_symbols[b]} below {hole:.2f} Å ("
        + (f"{then[a, b]:.2f} Å" if (a, b) in then else "not at all")
        + " before)"
        for (a, b), hole in worse.items()
    )
    logger.warning(
        "Pairs of atoms attract each other at short distances since the training: %s. Replay of "
        "structures that have such distances keeps the repulsion",
        ", ".join(told),
    )
