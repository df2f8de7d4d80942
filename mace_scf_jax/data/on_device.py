"""Batches put together on the device, of a set of structures that is there as a whole."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Int

from mace_scf_jax.data.collate import padded
from mace_scf_jax.data.properties import GRAPH_INPUTS, PROPERTIES
from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.sizes import BatchSizes, round_up
from mace_scf_jax.graph import Graph, StoredDescriptors
from mace_scf_jax.mesh import Mesh

_OF_GRAPHS = ("cell", "pbc", "graph_mask", "repeat", "config_weight", *GRAPH_INPUTS)
_OF_ATOMS = ("positions", "species")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChosenBatches:
    """Batches of equal padded sizes, by the positions of their structures in a set.

    The host sends positions only: whatever is small to compute is not worth being put together and
    sent structure by structure.
    """

    whole: Graph
    """All structures of the set as one batch without edges; see `whole_set`."""
    rows: Int[Array, "batches structures"]
    """Positions of the structures of each batch."""
    sizes: BatchSizes = dataclasses.field(metadata={"static": True})
    """Of every batch, in the layout "per_atom"."""

    def __len__(self) -> int:
        return len(self.rows)


def whole_set(structures: StructureSet, *, dtype: DTypeLike, mesh: Mesh | None) -> Graph:
    """All structures of a set as one batch on the device.

    Args:
        structures: without edges.
        dtype: of the real numbers; see `padded`.
        mesh: grid of the electrostatic sums; None for direct sums.
    """
    sizes = structures.sizes.of_one_batch("per_atom")
    sizes = dataclasses.replace(sizes, kvectors=round_up(sizes.kvectors))  # as many as any batch
    batch = padded(structures.stack(np.arange(len(structures))), sizes, dtype=dtype)
    return jax.device_put(batch.replace(mesh=mesh))


def size_of_whole(structures: StructureSet) -> float:
    """Estimate the bytes of `whole_set`, from the first structure and the sizes of all."""
    first, sizes = structures.stack(np.array([0])), structures.sizes
    of_atoms = sum(column.nbytes for column in first.atoms.entries.values()) / first.atoms.total
    of_indices = len(sizes) * int(sizes.kvectors.max()) * 3 * np.dtype(np.int32).itemsize
    of_slots = len(sizes) * int(sizes.atoms.max()) * (np.dtype(np.int32).itemsize + 1)
    return float(of_atoms * sizes.atoms.sum() + of_indices + of_slots)


def chosen(whole: Graph, rows: Int[Array, "structures"], sizes: BatchSizes) -> Graph:
    """The batch of some of the structures of a set, equal to the one that `padded` makes.

    Args:
        whole: the set, as of `whole_set`.
        rows: positions of the structures.
        sizes: padded sizes, in the layout "per_atom", that hold them.
    """
    unused = jnp.full(sizes.graphs - len(rows), whole.num_graphs - 1, rows.dtype)
    graphs = jnp.concatenate([rows, unused])
    counts = jnp.sum(whole.slot_mask[graphs], axis=1, dtype=jnp.int32)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    first = ends - counts
    places = jnp.arange(sizes.atoms, dtype=jnp.int32)
    atom_mask = places < ends[-1]
    atom_graph = jnp.searchsorted(ends, places, side="right", method="compare_all")
    atom_graph = jnp.where(atom_mask, atom_graph, sizes.graphs - 1).astype(jnp.int32)
    slot_of_atom = jnp.where(atom_mask, places - first[atom_graph], 0)
    atoms = jnp.where(
        atom_mask, whole.slots[graphs, 0][atom_graph] + slot_of_atom, whole.num_atoms - 1
    )
    slots = jnp.arange(sizes.slots, dtype=jnp.int32)
    slot_mask = slots < counts[:, None]

    def of_properties(columns: dict[str, Array]) -> dict[str, Array]:
        return {
            name: column[atoms if PROPERTIES[name].per_atom else graphs]
            for name, column in columns.items()
        }

    stored = whole.descriptors
    return whole.replace(
        **{name: getattr(whole, name)[atoms] for name in _OF_ATOMS},
        **{name: getattr(whole, name)[graphs] for name in _OF_GRAPHS},
        head=None if whole.head is None else whole.head[graphs],
        atom_graph=atom_graph,
        atom_mask=atom_mask,
        senders=jnp.full(sizes.edges, sizes.atoms - 1, jnp.int32),
        receivers=jnp.repeat(places, sizes.edges // sizes.atoms),
        cell_shifts=jnp.zeros((sizes.edges, 3), jnp.int32),
        edge_mask=jnp.zeros(sizes.edges, bool),
        slots=jnp.where(slot_mask, first[:, None] + slots, 0),
        slot_mask=slot_mask,
        slot_of_atom=slot_of_atom,
        k_indices=whole.k_indices[graphs, : sizes.kvectors],
        k_mask=whole.k_mask[graphs, : sizes.kvectors],
        atom_data=of_properties(whole.atom_data),
        labels=of_properties(whole.labels),
        weights=jax.tree.map(lambda column: column[graphs], whole.weights),
        descriptors=None if stored is None else StoredDescriptors(stored.values[atoms]),
        neighbours_per_atom=sizes.neighbours_per_atom,
        open_slots=sizes.open_slots,
    )
