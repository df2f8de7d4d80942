"""Batches from the bare arrays of reference files."""

from __future__ import annotations

import dataclasses

import ase
import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph

NO_EDGES = (np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3), dtype=np.int64))


def graph_from_arrays(
    positions: np.ndarray,
    graph_index: np.ndarray,
    *,
    cell: np.ndarray | None = None,
    pbc: np.ndarray | None = None,
    species: np.ndarray | None = None,
    edge_index: np.ndarray = NO_EDGES[0],
    unit_shifts: np.ndarray = NO_EDGES[1],
    kspace_cutoff: float | None = None,
    info: dict[str, np.ndarray] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Graph:
    """A padded batch with exactly the given cells and edges.

    Args:
        positions: [atoms, 3] in Å.
        graph_index: graph of each atom, non-decreasing.
        cell: [graphs, 3, 3] in Å, taken as it is; None for systems without one.
        pbc: [graphs, 3]; None for open systems.
        species: element index of each atom; None if it does not matter.
        edge_index: [2, edges] senders and receivers, in any order.
        unit_shifts: [edges, 3] lattice translations.
        kspace_cutoff: radius of the reciprocal sum in 1/Å; None for none.
        info: per-graph inputs by name (total_charge, external_field, ...).
        arrays: per-atom inputs by name (charges, ...).
    """
    species = np.zeros(len(positions), np.int64) if species is None else species
    senders, receivers = edge_index
    structures = []
    for index in range(int(graph_index.max()) + 1):
        own_atoms = np.flatnonzero(graph_index == index)
        first = own_atoms[0]
        own_edges = np.flatnonzero(graph_index[receivers] == index)
        own_edges = own_edges[np.argsort(receivers[own_edges], kind="stable")]
        own_cell = np.eye(3) if cell is None else cell[index]
        atoms = ase.Atoms(
            numbers=np.ones(len(own_atoms), dtype=int),
            positions=positions[own_atoms],
            cell=own_cell,
            pbc=False if pbc is None else pbc[index],
            info={name: values[index] for name, values in (info or {}).items()},
        )
        for name, values in (arrays or {}).items():
            atoms.set_array(name, values[own_atoms])
        structures.append(
            Structure(
                configuration=dataclasses.replace(from_atoms(atoms), cell=own_cell),
                species=species[own_atoms].astype(np.int32),
                senders=senders[own_edges] - first,
                receivers=receivers[own_edges] - first,
                cell_shifts=np.rint(unit_shifts[own_edges]).astype(np.int32),
                k_indices=(
                    np.zeros((0, 3), np.int32)
                    if kspace_cutoff is None
                    else half_space_indices(own_cell, kspace_cutoff)
                ),
            )
        )
    return jax.tree.map(jnp.asarray, collate(structures, labels=False))
