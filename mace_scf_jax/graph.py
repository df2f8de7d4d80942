"""The one container of a padded batch of atomic structures."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.mesh import Mesh, OpenMesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StoredDescriptors:
    """Descriptors of the atoms of a batch, computed before, for geometries that do not change."""

    values: Float[Array, "atoms features"]
    by_vector: Float[Array, "edges 3 features"] | None = None
    """Derivatives of those of the receiver by the vector of each edge, in 1/Å; None where the batch
    has no edges. An edge stands for all images of its sender that the receiver sees, and has no
    cell shift."""
    by_cell: Float[Array, "atoms 3 3 features"] | None = None
    """Derivatives by the cell at fixed positions, in 1/Å; None where the batch has no edges."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PairImages:
    """Lattice translations that sums over all pairs of atoms look at, of the structures of a batch.

    With atoms moved into the cell, every image of a pair within ``reach`` is among them.
    """

    translations: Int[Array, "graphs images 3"]
    """Integer multiples of the lattice vectors, zero along open directions."""
    mask: Bool[Array, "graphs images"]
    kinds: Int[Array, "kinds"]
    """Species that occur, as indices into the model's list of elements; -1 for padding."""
    cell: Float[Array, "graphs 3 3"]
    """The cells that they were chosen for, Å; with unit vectors along open directions."""
    reach: float = dataclasses.field(metadata={"static": True})
    """Å."""
    shrinkage: float = dataclasses.field(default=0.0, metadata={"static": True})
    """Relative change by which lengths may have become shorter since."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """A batch of structures: flat atoms and edges, per-graph quantities, masks.

    Every axis is padded to a static size. Padding atoms belong to the last graph, which is itself
    padding; padding edges point from a padding atom to a padding atom. Nothing computed from a
    batch may depend on padding.

    Positions and cells are in double precision also where everything else is in single precision,
    `dtype`: what is computed of them is rounded once vectors between atoms are formed.

    Units: Å, e, eV, V/Å. Arrays may be NumPy arrays (host) or JAX arrays (device).
    """

    positions: Float[Array, "atoms 3"]
    species: Int[Array, "atoms"]
    """Index into the model's list of elements (0 for padding)."""
    atom_graph: Int[Array, "atoms"]
    """Index of the graph that an atom belongs to, non-decreasing."""
    atom_mask: Bool[Array, "atoms"]

    senders: Int[Array, "edges"]
    receivers: Int[Array, "edges"]
    """Receiving atom of each directed edge, non-decreasing."""
    cell_shifts: Int[Array, "edges 3"]
    """Lattice translation n of an edge: vector = r_receiver - r_sender + n @ cell."""
    edge_mask: Bool[Array, "edges"]

    cell: Float[Array, "graphs 3 3"]
    """Rows are the lattice vectors; the cell used for electrostatics and volume."""
    pbc: Bool[Array, "graphs 3"]
    graph_mask: Bool[Array, "graphs"]
    total_charge: Float[Array, "graphs"]
    fermi_level: Float[Array, "graphs"]
    external_field: Float[Array, "graphs 3"]
    """Gradient of the external potential: the energy contains +D·E."""

    slots: Int[Array, "graphs slots"]
    """Atom in each slot of a graph: the dense view used wherever atoms of one graph are paired with
    each other or with reciprocal vectors. Empty slots hold 0 and are masked."""
    slot_mask: Bool[Array, "graphs slots"]
    slot_of_atom: Int[Array, "atoms"]
    """Slot of each atom within its graph (padding atoms: 0)."""
    k_indices: Int[Array, "graphs kvectors 3"]
    """Integer reciprocal indices n of half space, 0 < |n B| ≤ k_c, chosen on the host."""
    k_mask: Bool[Array, "graphs kvectors"]
    repeat: Float[Array, "graphs"]
    """Length in Å after which a slab is repeated along its normal in the boundary condition
    ``exact``; infinite without a periodic direction; 0 where the cell decides."""

    atom_data: dict[str, Array]
    """Further per-atom inputs by name, each [atoms, ...] (formal charges, ...)."""
    labels: dict[str, Array]
    """Reference values by canonical name: per graph [graphs, ...] or per atom [atoms, ...]."""
    weights: dict[str, Array]
    """Weight of each label, per graph: [graphs], for dipoles [graphs, 3]. Zero where missing."""
    config_weight: Float[Array, "graphs"]

    total_spin: Float[Array, "graphs"] | None = None
    """Multiplicity 2S + 1 of the electrons; None where no model reads it."""
    head: Int[Array, "graphs"] | None = None
    """Place of the level of theory among those of the model; None where it has a single one."""
    descriptors: StoredDescriptors | None = None
    """None where backbones compute them, if they use any."""
    images: PairImages | None = None
    """None where nothing is summed over all pairs."""

    neighbours_per_atom: int | None = dataclasses.field(default=None, metadata={"static": True})
    """If set, the edges of atom i are exactly [i * K, (i + 1) * K), K = neighbours_per_atom."""
    open_slots: int = dataclasses.field(default=0, metadata={"static": True})
    """Slots that graphs of infinite `repeat` fill, which are summed over pairs of atoms."""
    mesh: Mesh | None = dataclasses.field(default=None, metadata={"static": True})
    """Grid of the electrostatic sums of every graph, chosen on the host; None for direct sums over
    the reciprocal vectors, or over pairs with open boundary."""
    open_mesh: OpenMesh | None = dataclasses.field(default=None, metadata={"static": True})
    """Grid for graphs of infinite `repeat`; None for the sum over pairs."""

    @property
    def dtype(self) -> np.dtype:
        """Precision in which models compute."""
        return np.dtype(self.external_field.dtype)

    @property
    def num_atoms(self) -> int:
        """Padded number of atoms."""
        return self.positions.shape[0]

    @property
    def num_graphs(self) -> int:
        """Padded number of graphs."""
        return self.cell.shape[0]

    def replace(self, **changes) -> Graph:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def strained(self, strain: Float[Array, "graphs 3 3"]) -> Graph:
        """The batch under one homogeneous strain of each graph.

        Positions and cells are transformed by 1 + ½(ε + εᵀ); edge vectors, reciprocal vectors,
        volumes and dipoles follow because they are computed from those.

        Args:
            strain: strain tensor ε of each graph, dimensionless.
        """
        symmetric = 0.5 * (strain + jnp.swapaxes(strain, -1, -2))
        displacement = jnp.einsum("ai,aij->aj", self.positions, symmetric[self.atom_graph])
        return self.replace(
            positions=self.positions + displacement,
            cell=self.cell + jnp.einsum("gai,gij->gaj", self.cell, symmetric),
        )

    def head_of_atoms(self) -> Int[Array, "atoms"]:
        """Place of the head of the structure that an atom belongs to.

        Raises:
            ValueError: structures name no head, and the model has several.
        """
        if self.head is None:
            raise ValueError(
                "head: found structures that name none for a model of several heads; "
                "model.using(head=NAME) is the model of one"
            )
        return jnp.asarray(self.head)[self.atom_graph]

    def edge_vectors(self) -> Float[Array, "edges 3"]:
        """Vectors from sender to receiver in Å, rounded to `dtype`; (0, 0, 1) for padding edges."""
        return jnp.stack(self.edge_components(), axis=-1).reshape(-1, 3)

    def edge_components(self) -> tuple[Array, Array, Array]:
        """Components of `edge_vectors`, each in the form of `rows`."""
        senders, mask = self.rows(self.senders), self.rows(self.edge_mask)
        shifts = [self.rows(self.cell_shifts[:, vector]) for vector in range(3)]
        components = []
        for axis, placeholder in enumerate((0.0, 0.0, 1.0)):
            positions = jnp.asarray(self.positions)[:, axis]
            component = self.of_rows(positions) - positions[senders]
            for vector, shift in enumerate(shifts):
                cell = jnp.asarray(self.cell)[:, vector, axis][self.atom_graph]
                component += shift.astype(component.dtype) * self.of_rows(cell)
            components.append(jnp.where(mask, component.astype(self.dtype), placeholder))
        return tuple(components)

    def of_rows(self, values: Array) -> Array:
        """Values [atoms] of the atom at which the edges of each row end, [rows, 1]."""
        at_ends = values if self.neighbours_per_atom is not None else values[self.receivers]
        return at_ends[:, None]

    def rows(self, values: Array | np.ndarray) -> Array:
        """Values of edges [edges] with a row for each atom, [atoms, neighbours].

        In the layout "flat" with a row for each edge, [edges, 1].
        """
        return jnp.asarray(values).reshape(-1, self.neighbours_per_atom or 1)

    def sum_of_rows(self, sums: Array) -> Array:
        """Sums over the edges that end at each atom, from the sum over each row, [rows, ...]."""
        return sums if self.neighbours_per_atom is not None else self.sum_incoming(sums)

    def shortest_edges(self) -> Float[Array, "graphs"]:
        """Length of the shortest edge of every graph in Å; infinite without any, 0 for padding."""
        lengths = jnp.sqrt(jnp.sum(self.edge_vectors() ** 2, axis=-1))
        lengths = jnp.where(self.edge_mask, lengths, jnp.inf)
        shortest = jax.ops.segment_min(
            lengths, jnp.asarray(self.atom_graph)[self.receivers], num_segments=self.num_graphs
        )
        return jnp.where(self.graph_mask, shortest, 0.0)

    def local_positions(self) -> Float[Array, "atoms 3"]:
        """Positions in Å, rounded to `dtype` near the origin, for what does not depend on it.

        In double precision the positions as they are. Otherwise structures without periodic
        directions, and slabs of the boundary condition ``exact``, are moved to their centre, and
        atoms by lattice vectors into the cell.
        """
        positions = jnp.asarray(self.positions)
        if self.dtype == positions.dtype:
            return positions
        pbc, cell = jnp.asarray(self.pbc), jnp.asarray(self.cell)
        atoms = jnp.maximum(self.sum_atoms(jnp.ones_like(positions[:, 0])), 1.0)
        centre = self.sum_atoms(positions) / atoms[:, None]
        # Elsewhere the correction of a slab depends on where it stands.
        moves = ~jnp.any(pbc, axis=1) | (jnp.asarray(self.repeat) > 0.0)
        positions -= jnp.where(moves[:, None], centre, 0.0)[self.atom_graph]
        lattice = jnp.where(pbc[:, :, None], cell, 0.0)
        gram = jnp.einsum("gai,gbi->gab", lattice, lattice)
        gram += jax.vmap(jnp.diag)(jnp.where(pbc, 0.0, 1.0).astype(cell.dtype))
        dual = jax.lax.stop_gradient(jnp.linalg.solve(gram, lattice))
        turns = jnp.floor(jnp.einsum("ai,abi->ab", positions, dual[self.atom_graph]))
        images = jnp.einsum("ab,abi->ai", jax.lax.stop_gradient(turns), lattice[self.atom_graph])
        return (positions - images).astype(self.dtype)

    def external_potential(self) -> Float[Array, "atoms"]:
        """Potential E·r of the external field at the atoms, in V, rounded to `dtype`."""
        field = jnp.asarray(self.external_field).astype(self.positions.dtype)
        return jnp.sum(self.positions * field[self.atom_graph], axis=-1).astype(self.dtype)

    def to_slots(self, values: Array | np.ndarray) -> Array:
        """Per-atom values [atoms, ...] in the dense view [graphs, slots, ...]; empty slots zero."""
        dense = values[self.slots]
        mask = self.slot_mask.reshape(self.slot_mask.shape + (1,) * (values.ndim - 1))
        return jnp.where(mask, dense, jnp.zeros((), dtype=values.dtype))

    def from_slots(self, values: Array | np.ndarray) -> Array:
        """Dense values [graphs, slots, ...] per atom [atoms, ...]; padding atoms get zero."""
        flat = values[self.atom_graph, self.slot_of_atom]
        mask = self.atom_mask.reshape(self.atom_mask.shape + (1,) * (flat.ndim - 1))
        return jnp.where(mask, flat, jnp.zeros((), dtype=values.dtype))

    def sum_incoming(self, values: Float[Array, "edges *rest"]) -> Float[Array, "atoms *rest"]:
        """Sum of values of edges over those that end at each atom."""
        if self.neighbours_per_atom is None:
            return jax.ops.segment_sum(
                values, self.receivers, num_segments=self.num_atoms, indices_are_sorted=True
            )
        shape = (self.num_atoms, self.neighbours_per_atom, *values.shape[1:])
        return jnp.sum(values.reshape(shape), axis=1)

    def sum_incoming_products(
        self, left: Float[Array, "edges m"], right: Float[Array, "edges n"]
    ) -> Float[Array, "atoms m n"]:
        """Sum of outer products over the edges that end at each atom."""
        if self.neighbours_per_atom is None:
            return self.sum_incoming(left[:, :, None] * right[:, None, :])
        shape = (self.num_atoms, self.neighbours_per_atom, -1)
        return jnp.einsum("akm,akn->amn", left.reshape(shape), right.reshape(shape))

    def at_receivers(self, values: Float[Array, "atoms *rest"]) -> Float[Array, "edges *rest"]:
        """Values of the atom at which each edge ends."""
        if self.neighbours_per_atom is None:
            return values[self.receivers]
        return jnp.repeat(values, self.neighbours_per_atom, axis=0)

    def sum_atoms(self, values: Array | np.ndarray) -> Array:
        """Sum of per-atom values [atoms, ...] over each graph: [graphs, ...]; padding ignored."""
        mask = self.atom_mask.reshape(self.atom_mask.shape + (1,) * (values.ndim - 1))
        masked = jnp.where(mask, values, jnp.zeros((), dtype=values.dtype))
        return jax.ops.segment_sum(
            masked, self.atom_graph, num_segments=self.num_graphs, indices_are_sorted=True
        )
