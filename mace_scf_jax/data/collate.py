"""Putting structures into one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import DTypeLike

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import ATOM_INPUTS, ATOM_LABELS, GRAPH_LABELS
from mace_scf_jax.data.sizes import BatchSizes, required_sizes
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph

PADDING_CELL = 10.0
"""Edge (Å) of the cubic cell of padding graphs: any cell with a volume will do."""


def collate(
    structures: Sequence[Structure],
    sizes: BatchSizes | None = None,
    *,
    dtype: DTypeLike = np.float64,
    labels: bool = True,
    padding: bool = True,
) -> Graph:
    """One padded batch of structures, as NumPy arrays.

    There is always at least one padding atom and one padding graph, the last, to which all padding
    atoms belong. In the layout "flat" edges are sorted by receiver and padding edges connect the
    last (padding) atom to itself; in the layout "per_atom" atom i owns the edges [i K, (i + 1) K)
    and its padding edges come from the last atom. Labels that a structure lacks are zero with
    weight zero.

    Args:
        structures: at least one.
        sizes: padded sizes; by default the smallest of a geometric series, layout "flat".
        dtype: of all real numbers; indices are int32.
        labels: whether to include reference values and their weights.
        padding: whether there has to be a padding atom and a padding graph. Without them, as in
            simulations of one structure, the last atom takes part in padding edges, which are
            masked.

    Raises:
        DataError: if the structures do not fit.
    """
    if sizes is None:
        sizes = required_sizes(structures, padding=padding).rounded()
    layout = "flat" if sizes.neighbours_per_atom is None else "per_atom"
    needed = required_sizes(structures, layout, padding=padding)
    if not sizes.holds(needed):
        raise DataError(f"batch: found structures that need {needed}, expected at most {sizes}")

    configurations = [entry.configuration for entry in structures]
    counts = np.array([entry.num_atoms for entry in structures])
    offsets = np.cumsum(counts) - counts
    num_graphs = len(structures)

    def graph_values(rows: Sequence[np.ndarray]) -> np.ndarray:
        return _pad(np.stack(rows).astype(dtype), sizes.graphs)

    def atom_values(name: str) -> np.ndarray:
        values = np.concatenate([entry.values[name] for entry in configurations])
        if values.dtype.kind == "f":
            values = values.astype(dtype)
        return _pad(values, sizes.atoms)

    def per_graph(name: str) -> np.ndarray:
        return graph_values([entry.values[name] for entry in configurations])

    atom_graph = np.repeat(np.arange(num_graphs), counts).astype(np.int32)
    slot_of_atom = np.concatenate([np.arange(count) for count in counts]).astype(np.int32)
    slots = np.zeros((sizes.graphs, sizes.slots), dtype=np.int32)
    slots[atom_graph, slot_of_atom] = np.arange(len(atom_graph))
    k_indices = np.zeros((sizes.graphs, sizes.kvectors, 3), dtype=np.int32)
    for index, entry in enumerate(structures):
        k_indices[index, : entry.num_kvectors] = entry.k_indices
    cell = np.tile(PADDING_CELL * np.eye(3, dtype=dtype), (sizes.graphs, 1, 1))
    cell[:num_graphs] = np.stack([entry.cell for entry in configurations])
    names = (*GRAPH_LABELS, *ATOM_LABELS) if labels else ()

    return Graph(
        positions=_pad(
            np.concatenate([entry.positions for entry in configurations]).astype(dtype), sizes.atoms
        ),
        species=_pad(np.concatenate([entry.species for entry in structures]), sizes.atoms),
        atom_graph=_pad(atom_graph, sizes.atoms, fill=sizes.graphs - 1),
        atom_mask=np.arange(sizes.atoms) < counts.sum(),
        **_edges(structures, offsets, sizes),
        cell=cell,
        pbc=_pad(np.stack([entry.pbc for entry in configurations]), sizes.graphs),
        graph_mask=np.arange(sizes.graphs) < num_graphs,
        total_charge=per_graph("total_charge"),
        fermi_level=per_graph("fermi_level"),
        external_field=per_graph("external_field"),
        slots=slots,
        slot_mask=_counted(counts, sizes.graphs, sizes.slots),
        slot_of_atom=_pad(slot_of_atom, sizes.atoms),
        k_indices=k_indices,
        k_mask=_counted([entry.num_kvectors for entry in structures], sizes.graphs, sizes.kvectors),
        atom_data={name: atom_values(name) for name in ATOM_INPUTS},
        labels={
            name: per_graph(name) if name in GRAPH_LABELS else atom_values(name) for name in names
        },
        weights={
            name: graph_values([entry.weights[name] for entry in configurations]) for name in names
        },
        config_weight=graph_values([np.asarray(entry.config_weight) for entry in configurations]),
        neighbours_per_atom=sizes.neighbours_per_atom,
    )


def concatenate(parts: Sequence[Graph]) -> Graph:
    """Batches of equal padded sizes one after the other along the first axis of every array.

    Indices still count within each part: this is how several devices hold one batch, a part each.

    Args:
        parts: at least one.
    """
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def without_structures(batch: Graph) -> Graph:
    """A batch of the same padded sizes that holds padding only.

    Args:
        batch: of at least one structure.
    """
    last_atom = np.full_like(batch.senders, batch.num_atoms - 1)
    is_flat = batch.neighbours_per_atom is None
    return jax.tree.map(np.zeros_like, batch).replace(
        atom_graph=np.full_like(batch.atom_graph, batch.num_graphs - 1),
        senders=last_atom,
        receivers=last_atom if is_flat else batch.receivers,
        cell=np.tile(PADDING_CELL * np.eye(3, dtype=batch.cell.dtype), (batch.num_graphs, 1, 1)),
    )


def _edges(
    structures: Sequence[Structure], offsets: np.ndarray, sizes: BatchSizes
) -> dict[str, np.ndarray]:
    """Edge arrays of a batch, in the layout that the sizes ask for."""
    pairs = list(zip(structures, offsets, strict=True))
    senders = np.concatenate([entry.senders + offset for entry, offset in pairs])
    receivers = np.concatenate([entry.receivers + offset for entry, offset in pairs])
    shifts = np.concatenate([entry.cell_shifts for entry in structures])

    last_atom = sizes.atoms - 1
    if sizes.neighbours_per_atom is None:
        places = np.arange(len(senders))
        all_receivers = np.full(sizes.edges, last_atom, dtype=np.int32)
    else:
        first_edge = np.searchsorted(receivers, np.arange(sizes.atoms))
        rank = np.arange(len(receivers)) - first_edge[receivers]
        places = receivers * sizes.neighbours_per_atom + rank
        all_receivers = np.repeat(np.arange(sizes.atoms), sizes.neighbours_per_atom).astype(
            np.int32
        )
    all_receivers[places] = receivers
    all_senders = np.full(sizes.edges, last_atom, dtype=np.int32)
    all_senders[places] = senders
    all_shifts = np.zeros((sizes.edges, 3), dtype=np.int32)
    all_shifts[places] = shifts
    mask = np.zeros(sizes.edges, dtype=bool)
    mask[places] = True
    return {
        "senders": all_senders,
        "receivers": all_receivers,
        "cell_shifts": all_shifts,
        "edge_mask": mask,
    }


def _pad(values: np.ndarray, size: int, fill: int = 0) -> np.ndarray:
    """Values with the first axis extended to `size`."""
    padded = np.full((size, *values.shape[1:]), fill, dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def _counted(counts: Sequence[int] | np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mask [rows, columns] that is true for the first `counts[i]` columns of row i."""
    return np.arange(columns) < _pad(np.asarray(counts), rows)[:, None]
