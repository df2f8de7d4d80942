"""Putting structures into one padded batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jaxtyping import DTypeLike

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import (
    ATOM_INPUTS,
    ATOM_LABELS,
    BATCH_PROPERTIES,
    GRAPH_INPUTS,
    GRAPH_LABELS,
    PROPERTIES,
    Shape,
    row_shape,
)
from mace_scf_jax.data.sizes import BatchSizes, Layout, StructureSizes
from mace_scf_jax.data.stack import CELL_DERIVATIVES, DESCRIPTORS, PAIR_DERIVATIVES, Stack, stack
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph, StoredDescriptors
from mace_scf_jax.mesh import Mesh, common_mesh, common_open_mesh

PADDING_CELL = 10.0
"""Edge (Å) of the cubic cell of padding graphs: any cell with a volume will do."""


def collate(
    structures: Sequence[Structure],
    sizes: BatchSizes | None = None,
    *,
    dtype: DTypeLike = np.float64,
    labels: bool = True,
    padding: bool = True,
    mesh: Mesh | None = None,
) -> Graph:
    """One padded batch of structures, as NumPy arrays; see `padded`.

    Arrays of what no structure has are read-only.

    Args:
        structures: at least one.
        sizes: padded sizes; by default the smallest of a geometric series, layout "flat".
        dtype: of all real numbers but positions, cells and energies, which are in double precision;
            indices are int32.
        labels: whether to include reference values and their weights.
        padding: as for `padded`.
        mesh: grid of the electrostatic sums; None for the coarsest that serves the structures.

    Raises:
        DataError: if there are no structures, or they do not fit.
        MeshError: some of the structures have a mesh and others have none.
    """
    if not structures:
        raise DataError("batch: found no structures")
    stacked = stack(structures, BATCH_PROPERTIES if labels else (*GRAPH_INPUTS, *ATOM_INPUTS))
    if sizes is None:
        sizes = StructureSizes.of(stacked).of_one_batch("flat", padding=padding).rounded()
    if mesh is None:
        mesh = mesh_of(structures)
    batch = padded(stacked, sizes, dtype=dtype, labels=labels, padding=padding)
    return batch.replace(
        mesh=mesh, open_mesh=common_open_mesh(entry.open_mesh for entry in structures)
    )


def padded(
    stacked: Stack,
    sizes: BatchSizes,
    *,
    dtype: DTypeLike = np.float64,
    labels: bool = True,
    padding: bool = True,
) -> Graph:
    """One padded batch of structures, as NumPy arrays.

    Batches share the arrays of what none of their structures has; these are read-only.

    There is always at least one padding atom and one padding graph, the last, to which all padding
    atoms belong. In the layout "flat" edges are sorted by receiver and padding edges connect the
    last (padding) atom to itself; in the layout "per_atom" atom i owns the edges [i K, (i + 1) K)
    and its padding edges come from the last atom. Labels that a structure lacks are zero with
    weight zero.

    Args:
        stacked: the structures.
        sizes: padded sizes.
        dtype: of all real numbers but positions, cells and energies, which are in double precision;
            indices are int32.
        labels: whether to include reference values and their weights.
        padding: whether there has to be a padding atom and a padding graph. Without them, as in
            simulations of one structure, the last atom takes part in padding edges, which are
            masked.

    Raises:
        DataError: if the structures do not fit.
    """
    layout: Layout = "flat" if sizes.neighbours_per_atom is None else "per_atom"
    needed = StructureSizes.of(stacked).of_one_batch(layout, padding=padding)
    if not sizes.holds(needed):
        raise DataError(f"batch: found structures that need {needed}, expected at most {sizes}")

    atoms = stacked.atoms
    num_graphs, num_atoms = len(stacked), atoms.total
    graph_of_atom = np.repeat(np.arange(num_graphs), atoms.counts)
    atom_graph = np.full(sizes.atoms, sizes.graphs - 1, dtype=np.int32)
    atom_graph[:num_atoms] = graph_of_atom
    slot_of_atom = np.arange(num_atoms) - atoms.first[graph_of_atom]
    slots = np.zeros((sizes.graphs, sizes.slots), dtype=np.int32)
    slots[graph_of_atom, slot_of_atom] = np.arange(num_atoms)
    k_indices = np.zeros((sizes.graphs, sizes.kvectors, 3), dtype=np.int32)
    for graph, indices in enumerate(stacked.k_indices):
        k_indices[graph, : len(indices)] = indices
    cell = _pad(stacked.cell, sizes.graphs, np.float64)
    cell[num_graphs:] = PADDING_CELL * np.eye(3)
    repeat = _pad(stacked.repeat, sizes.graphs, np.float64)
    repeat[num_graphs:] = np.inf

    def values(name: str) -> np.ndarray:
        rows = sizes.atoms if PROPERTIES[name].per_atom else sizes.graphs
        found = stacked.property(name)
        if found is None:
            return _no_values(name, rows, stacked.multipoles_max_l, dtype)
        kind = np.int32 if PROPERTIES[name].shape is Shape.ATOM_INTEGER else dtype
        kind = np.float64 if name == "energy" else kind  # of all electrons
        return _pad(found, rows, kind, PROPERTIES[name].missing)

    def weights(name: str) -> np.ndarray:
        if name in stacked.weights:
            return _pad(stacked.weights[name], sizes.graphs, dtype)
        return _zeros((sizes.graphs, 3) if name == "dipole" else (sizes.graphs,), dtype)

    names = (*GRAPH_LABELS, *ATOM_LABELS) if labels else ()
    edges = _edges(stacked, sizes)
    return Graph(
        positions=_pad(atoms["positions"], sizes.atoms, np.float64),
        species=_pad(atoms["species"], sizes.atoms, np.int32),
        atom_graph=atom_graph,
        atom_mask=np.arange(sizes.atoms) < num_atoms,
        **edges,
        cell=cell,
        pbc=_pad(stacked.pbc, sizes.graphs, bool),
        graph_mask=np.arange(sizes.graphs) < num_graphs,
        **{name: values(name) for name in GRAPH_INPUTS},
        slots=slots,
        slot_mask=_counted(atoms.counts, sizes.graphs, sizes.slots),
        slot_of_atom=_pad(slot_of_atom, sizes.atoms, np.int32),
        k_indices=k_indices,
        k_mask=_counted(stacked.num_kvectors, sizes.graphs, sizes.kvectors),
        repeat=repeat,
        atom_data={name: values(name) for name in ATOM_INPUTS},
        labels={name: values(name) for name in names},
        weights={name: weights(name) for name in names},
        config_weight=_pad(stacked.config_weight, sizes.graphs, dtype),
        descriptors=_descriptors(stacked, sizes, edges["edge_mask"], dtype),
        head=None if stacked.head is None else _pad(stacked.head, sizes.graphs, np.int32),
        neighbours_per_atom=sizes.neighbours_per_atom,
        open_slots=sizes.open_slots,
    )


def mesh_of(structures: Iterable[Structure]) -> Mesh | None:
    """The coarsest grid that serves structures; those summed over pairs of atoms need none.

    Raises:
        MeshError: some of the others have a mesh and others have none.
    """
    return common_mesh(entry.mesh for entry in structures if not math.isinf(entry.repeat))


def concatenate(parts: Sequence[Graph]) -> Graph:
    """Batches of equal padded sizes one after the other along the first axis of every array.

    Indices still count within each part: this is how several devices hold one batch, a part each.
    There is at least one.
    """
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def without_structures(batch: Graph) -> Graph:
    """A batch of the same padded sizes as one of at least one structure, with padding only."""
    last_atom = np.full_like(batch.senders, batch.num_atoms - 1)
    is_flat = batch.neighbours_per_atom is None
    return jax.tree.map(np.zeros_like, batch).replace(
        atom_graph=np.full_like(batch.atom_graph, batch.num_graphs - 1),
        senders=last_atom,
        receivers=last_atom if is_flat else batch.receivers,
        repeat=np.full_like(batch.repeat, np.inf),
        cell=np.tile(PADDING_CELL * np.eye(3, dtype=batch.cell.dtype), (batch.num_graphs, 1, 1)),
    )


def _edges(stacked: Stack, sizes: BatchSizes) -> dict[str, np.ndarray]:
    """Edge arrays of a batch, in the layout that the sizes ask for."""
    edges = stacked.edges
    first_atom = np.repeat(stacked.atoms.first, edges.counts)
    senders, receivers = edges["senders"] + first_atom, edges["receivers"] + first_atom
    last_atom = sizes.atoms - 1
    if sizes.neighbours_per_atom is None:
        places: slice | np.ndarray = slice(len(senders))
        all_receivers = np.full(sizes.edges, last_atom, dtype=np.int32)
    else:
        atoms = np.arange(sizes.atoms, dtype=np.int32)
        rank = np.arange(len(receivers)) - np.searchsorted(receivers, atoms)[receivers]
        places = receivers * sizes.neighbours_per_atom + rank
        all_receivers = np.repeat(atoms, sizes.neighbours_per_atom)
    all_receivers[places] = receivers
    all_senders = np.full(sizes.edges, last_atom, dtype=np.int32)
    all_senders[places] = senders
    all_shifts = np.zeros((sizes.edges, 3), dtype=np.int32)
    all_shifts[places] = edges["cell_shifts"]
    mask = np.zeros(sizes.edges, dtype=bool)
    mask[places] = True
    return {
        "senders": all_senders,
        "receivers": all_receivers,
        "cell_shifts": all_shifts,
        "edge_mask": mask,
    }


def _descriptors(
    stacked: Stack, sizes: BatchSizes, edge_mask: np.ndarray, dtype: DTypeLike
) -> StoredDescriptors | None:
    """Descriptors that were computed before, if they were."""
    atoms, edges = stacked.atoms.entries, stacked.edges.entries
    if DESCRIPTORS not in atoms:
        return None
    values = _pad(atoms[DESCRIPTORS], sizes.atoms, dtype)
    if PAIR_DERIVATIVES not in edges:
        return StoredDescriptors(values)
    of_pairs = edges[PAIR_DERIVATIVES]
    by_vector = np.zeros((sizes.edges, *of_pairs.shape[1:]), dtype=dtype)
    by_vector[edge_mask] = of_pairs  # both in the order of receivers
    return StoredDescriptors(values, by_vector, _pad(atoms[CELL_DERIVATIVES], sizes.atoms, dtype))


def _pad(values: np.ndarray, rows: int, dtype: DTypeLike, fill: float = 0.0) -> np.ndarray:
    """Values with the first axis extended to so many rows, by zeros if not told otherwise."""
    extended = np.full((rows, *values.shape[1:]), fill, dtype=dtype)
    extended[: len(values)] = values
    return extended


@functools.lru_cache(maxsize=256)
def _no_values(name: str, rows: int, multipoles_max_l: int, dtype: DTypeLike) -> np.ndarray:
    """What stands for a property that no structure has."""
    entry = PROPERTIES[name]
    row = row_shape(entry, multipoles_max_l=multipoles_max_l)
    values = np.full(
        (rows, *row), entry.missing, np.int32 if entry.shape is Shape.ATOM_INTEGER else dtype
    )
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=256)
def _zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Zeros, the same array whenever they are asked for."""
    zeros = np.zeros(shape, dtype=dtype)
    zeros.flags.writeable = False
    return zeros


def _counted(counts: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mask [rows, columns] that is true for the first `counts[i]` columns of row i."""
    return np.arange(columns) < _pad(counts, rows, counts.dtype)[:, None]
