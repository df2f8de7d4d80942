"""Numbers that a model takes from its training set, and those that its record keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Bool, Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import STACKED_AT_ONCE

LABELS_FOUND = "Structures, and how many of them have each label"
"""Beginning of the message with the `label_table`."""
STRUCTURES = "structures"
"""Heading of its first column."""


def average_number_of_neighbours(sizes: StructureSizes) -> float:
    """Mean number of neighbours of the atoms that have any.

    All structures count. The PyTorch reference leaves out those that do not fill the last batch of
    one shuffled epoch, so that its value depends on the seed.

    Raises:
        DataError: if no atom has a neighbour.
    """
    connected = int(sizes.connected_atoms.sum())
    if connected == 0:
        raise DataError(
            "average number of neighbours: found no atom with a neighbour within the cutoff; set "
            "compute_avg_num_neighbors to false and avg_num_neighbors to a number"
        )
    return int(sizes.edges.sum()) / connected


def interaction_energies(
    catalogue: Catalogue,
    atomic_energies: Float[np.ndarray, "*configurations elements"],
    elements: Sequence[int],
) -> Float[np.ndarray, "configurations"]:
    """Interaction energy per atom, (E - Σ E0) / N, of each configuration, eV.

    Args:
        atomic_energies: of all configurations, or a row for each.
    """
    energies = np.asarray(atomic_energies, dtype=np.float64)
    counts = catalogue.counts_of(elements)
    free_atoms = counts @ energies if energies.ndim == 1 else np.sum(counts * energies, axis=1)
    return (catalogue.energy - free_atoms) / catalogue.num_atoms


def surplus_charges(
    structures: StructureSet, formal_charges: Sequence[float] | None
) -> Float[np.ndarray, "labelled"]:
    """Sum of the formal charges less `total_charge`, in e, of the structures that have the latter.

    Formal charges are those of the elements that the model knows, or None for the `charges` of the
    data.
    """
    surplus = []
    for start in range(0, len(structures), STACKED_AT_ONCE):
        rows = np.arange(start, min(start + STACKED_AT_ONCE, len(structures)))
        stacked = structures.stack(rows)
        if formal_charges is None:
            charges = stacked.atoms.entries.get("charges", np.zeros(stacked.atoms.total))
        else:
            charges = np.asarray(formal_charges)[stacked.atoms["species"]]
        nothing = np.zeros(len(rows))
        labelled = stacked.weights.get("total_charge", nothing) > 0.0
        total = stacked.values.get("total_charge", nothing)
        surplus.append((np.add.reduceat(charges, stacked.atoms.first) - total)[labelled])
    return np.concatenate(surplus)


def describe_formal_charges(charges: Sequence[float] | None) -> str:
    """The log line on formal charges in e, of the elements; None where every atom has its own."""
    return f"Formal charges: {'of each atom, from the data' if charges is None else list(charges)}"


def scale_and_shift(
    train: Catalogue,
    atomic_energies: Float[np.ndarray, "elements"],
    elements: Sequence[int],
    scaling: str,
) -> tuple[float, float]:
    """Scale and shift of the interaction energy of an atom.

    The shift is the mean interaction energy per atom, (E - Σ E0) / N. The scale is its standard
    deviation over the configurations, or the root mean square of the force components. Only
    configurations with energies, and forces, of non-zero weight count.

    Args:
        train: the training set.
        atomic_energies: energies of free atoms, eV.
        elements: their atomic numbers.
        scaling: "std_scaling", "rms_forces_scaling", or "no_scaling", which is (1, 0).

    Returns:
        Scale (eV, or eV/Å) and shift (eV).

    Raises:
        DataError: if the labels needed are missing or give a scale of zero.
    """
    if scaling == "no_scaling":
        return 1.0, 0.0
    energies = interaction_energies(train, atomic_energies, elements)
    interaction = energies[train.weights["energy"] > 0.0]
    if len(interaction) == 0:
        raise DataError(f"{scaling}: found no training configuration with an energy")
    if scaling == "std_scaling":
        scale = float(np.std(interaction, ddof=1)) if len(interaction) > 1 else 0.0
    elif scaling == "rms_forces_scaling":
        labelled = train.weights["forces"] > 0.0
        if not labelled.any():
            raise DataError(f"{scaling}: found no training configuration with forces")
        components = 3 * train.num_atoms[labelled].sum()
        scale = float(np.sqrt(train.squared_forces[labelled].sum() / components))
    else:
        raise DataError(
            f"scaling: found {scaling!r}, expected std_scaling, rms_forces_scaling or no_scaling"
        )
    if scale == 0.0:
        raise DataError(
            f"{scaling}: found a scale of zero, expected training data that differ; `scaling: "
            "no_scaling` does without"
        )
    return scale, float(np.mean(interaction))


def set_record(
    catalogue: Catalogue,
    sizes: StructureSizes,
    *,
    elements: Sequence[int],
    atomic_energies: Float[np.ndarray, "*configurations elements"],
) -> dict[str, Any]:
    """Statistics of a set of at least one structure as JSON values.

    Returns:
        ``structures`` and ``atoms``, their numbers; ``largest_structure`` in atoms;
        ``config_types``, structures by type; ``elements``, atoms by symbol; ``labels``, structures
        with a weight above zero by property; ``average_number_of_neighbours``;
        ``energy_per_atom`` and ``interaction_energy_per_atom`` (without free atoms) with mean,
        standard deviation, least and largest in eV; ``forces_rms`` in eV/Å; ``digest``, which
        changes with every structure, label and weight. What no structure has is left out.
    """
    labelled = _labelled(catalogue)
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
        "labels": labels_found(catalogue),
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


def labels_found(catalogue: Catalogue) -> dict[str, int]:
    """Number of structures with a weight above zero by property; without those that none has."""
    return {name: int(rows.sum()) for name, rows in _labelled(catalogue).items() if rows.any()}


def label_table(sets: Mapping[str, Catalogue]) -> str:
    """A table of how many structures of each set have each label.

    Args:
        sets: by name.
    """
    found = {
        name: {STRUCTURES: len(members), **labels_found(members)} for name, members in sets.items()
    }
    labels = list(dict.fromkeys(label for counts in found.values() for label in counts))
    rows = [["", *labels]]
    rows += [[name, *(str(counts.get(it, 0)) for it in labels)] for name, counts in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [map(str.rjust, row, widths) for row in rows]
    return "\n".join((LABELS_FOUND, *(f"| {' | '.join(cells)} |" for cells in aligned)))


def _labelled(catalogue: Catalogue) -> dict[str, Bool[np.ndarray, "configurations"]]:
    """Which structures have a weight above zero, by property."""
    return {name: _any_component(weights) > 0.0 for name, weights in catalogue.weights.items()}


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
