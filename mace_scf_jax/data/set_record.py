"""What a set of structures was like, for the record of the models that were made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.statistics import average_number_of_neighbours, interaction_energies


def set_record(
    catalogue: Catalogue,
    sizes: StructureSizes,
    *,
    elements: Sequence[int],
    atomic_energies: Float[np.ndarray, "elements"],
) -> dict[str, Any]:
    """Statistics of a set as JSON values.

    Args:
        catalogue: of the set, with at least one structure.
        sizes: of the same structures.
        elements: atomic numbers of the model.
        atomic_energies: energies of free atoms, eV.

    Returns:
        ``structures`` and ``atoms``, their numbers; ``largest_structure`` in atoms;
        ``config_types``, structures by type; ``elements``, atoms by symbol; ``labels``, structures
        with a weight above zero by property; ``average_number_of_neighbours``;
        ``energy_per_atom`` and ``interaction_energy_per_atom`` (without free atoms) with mean,
        standard deviation, least and largest in eV; ``forces_rms`` in eV/Å; ``digest``, which
        changes with every structure, label and weight. What no structure has is left out.
    """
    labelled = {name: _any_component(weights) > 0.0 for name, weights in catalogue.weights.items()}
    counts = catalogue.counts_of(catalogue.occurring_elements()).sum(axis=0)
    record: dict[str, Any] = {
        "structures": len(catalogue),
        "atoms": int(catalogue.num_atoms.sum()),
        "largest_structure": int(catalogue.num_atoms.max()),
        "config_types": _counts(catalogue.config_type),
        "elements": {
            chemical_symbols[number]: int(count)
            for number, count in zip(catalogue.occurring_elements(), counts, strict=True)
        },
        "labels": {name: int(rows.sum()) for name, rows in labelled.items() if rows.any()},
    }
    if sizes.connected_atoms.any():
        record["average_number_of_neighbours"] = average_number_of_neighbours(sizes)
    if labelled["energy"].any():
        rows = labelled["energy"]
        interaction = interaction_energies(catalogue, atomic_energies, elements)
        record["energy_per_atom"] = _spread((catalogue.energy / catalogue.num_atoms)[rows])
        record["interaction_energy_per_atom"] = _spread(interaction[rows])
    if labelled["forces"].any():
        rows = labelled["forces"]
        components = 3 * catalogue.num_atoms[rows].sum()
        record["forces_rms"] = float(np.sqrt(catalogue.squared_forces[rows].sum() / components))
    return record | {"digest": catalogue.content_digest()}


def _any_component(weights: Float[np.ndarray, "..."]) -> Float[np.ndarray, "configurations"]:
    """Largest weight of any component of each configuration."""
    return weights.reshape(len(weights), -1).max(axis=1)


def _counts(names: np.ndarray) -> Mapping[str, int]:
    """How often each name occurs, in order of first appearance."""
    counts: dict[str, int] = {}
    for name in names:
        counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


def _spread(values: Float[np.ndarray, "configurations"]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "standard_deviation": float(np.std(values)),
        "least": float(np.min(values)),
        "largest": float(np.max(values)),
    }
