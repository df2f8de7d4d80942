"""Neighbours of one structure that stay valid while its atoms move, renewed on the device.

Edges reach further than the model's cutoff by a skin. Edges longer than the cutoff contribute
exactly nothing, so a list stays valid until a pair that was beyond the skin may have come within
the cutoff, which the displacements tell.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.boundary import plane_normal, repeated_cell
from mace_scf_jax.data.sizes import BatchSizes
from mace_scf_jax.data.structure import shell
from mace_scf_jax.electrostatics.sums.truncation import keeps_copies_apart
from mace_scf_jax.graph import Graph

RENEWED_AT = 0.5
"""Part of the skin that may be used up before `Neighbours.update` searches again: what is left is
for the step between the update and the next energy."""

LEAST_BOX = 0.9
"""Part of the box that the positions of an open structure ask for down to which a box is kept."""

_ROUND_OFF = 1e-6
"""Strain that a cell may exceed its range by."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Neighbours:
    """One structure with its edges and reciprocal vectors, of static shapes: a pytree.

    Made on the host by the `prepare` of `mace_scf_jax.energy_function`; renewed by `update`, inside
    compiled functions too.
    """

    graph: Graph
    """The structure; positions and cell are those of the last search. Padding atoms, of which the
    functional API has none, are masked; the one graph is real."""
    search_box: Float[Array, "3 3"]
    """Vectors along open directions, Å: unit normals to the periodic ones (rows)."""
    reciprocal_cell: Float[Array, "3 3"]
    """The cell for which reciprocal vectors were chosen, Å."""
    overflow: Bool[Array, ""]
    """Whether a search found more neighbours than fit, needed more periodic images, or atoms where
    `serves_extent` does not hold: the structure has to be prepared again."""

    cutoff: float = dataclasses.field(metadata={"static": True})
    """Length in Å beyond which edges contribute nothing."""
    skin: float = dataclasses.field(metadata={"static": True})
    """Length in Å by which edges may be longer."""
    largest_strain: float | None = dataclasses.field(metadata={"static": True})
    """Stretch of the cell that reciprocal vectors or mesh serve; None if there are none."""
    images: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    """Periodic images of a pair that a search looks at, in each direction."""
    tails: float | None = dataclasses.field(default=None, metadata={"static": True})
    """Length in Å to which Gaussians reach in the boundary condition ``exact``; None in others."""

    @property
    def sizes(self) -> BatchSizes:
        """Lengths of the arrays."""
        num_atoms, most = self.graph.num_atoms, self.graph.neighbours_per_atom
        num_kvectors, open_slots = self.graph.k_indices.shape[1], self.graph.open_slots
        return BatchSizes(
            num_atoms, num_atoms * most, 1, num_atoms, num_kvectors, most, open_slots=open_slots
        )

    @property
    def positions(self) -> Float[Array, "atoms 3"]:
        """Positions at the last search, Å."""
        return self.graph.positions

    @property
    def cell(self) -> Float[Array, "3 3"]:
        """Cell at the last search, Å (rows)."""
        return self.graph.cell[0]

    def skin_used(
        self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]
    ) -> Float[Array, ""]:
        """How much of the skin displacements have used up: above 1 edges may be missing.

        With the change of cell F, A = A₀ F, and displacements u from the atoms carried along by it,
        a pair now within the cutoff was within ‖F⁻¹‖ (cutoff + 2 max |u|).
        """
        positions, cell = jax.lax.stop_gradient((positions, cell))
        change = jnp.linalg.solve(self.box_of(self.cell), self.box_of(cell))
        moved = positions - self.positions @ change
        furthest = jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1)))
        reach = _stretch(jnp.linalg.inv(change)) * (self.cutoff + 2.0 * furthest)
        return (reach - self.cutoff) / self.skin

    def serves_cell(self, cell: Float[Array, "3 3"]) -> Bool[Array, ""]:
        """Whether reciprocal vectors, or mesh, were chosen for a range that contains this cell."""
        if self.largest_strain is None:
            return jnp.asarray(True)
        cell, chosen_for = jax.lax.stop_gradient(cell), self.reciprocal_cell
        if self.tails is not None:
            pbc, repeat = self.graph.pbc[0], self.graph.repeat[0]
            cell, chosen_for = (repeated_cell(each, pbc, repeat) for each in (cell, chosen_for))
        if self.graph.mesh is not None:
            return self.graph.mesh.serves(cell)
        change = jnp.linalg.solve(chosen_for, cell)
        return _stretch(change) <= 1.0 + self.largest_strain + _ROUND_OFF

    def has_images(self, cell: Float[Array, "3 3"]) -> Bool[Array, ""]:
        """Whether no translation is missing that sums over all pairs of atoms need."""
        images = self.graph.images
        if images is None:
            return jnp.asarray(True)
        change = jnp.linalg.solve(self.box_of(images.cell[0]), self.box_of(cell))
        shrunk = _stretch(jnp.linalg.inv(jax.lax.stop_gradient(change)))
        return shrunk <= 1.0 + images.shrinkage + _ROUND_OFF

    def serves_extent(
        self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]
    ) -> Bool[Array, ""]:
        """Whether images of the atoms that do not exist are still as far away as they were made.

        In the boundary condition ``exact`` a slab must not have outgrown its `Graph.repeat`. In
        others, an open structure must not have outgrown the box that it was put into; nor the grid
        that was made around it.
        """
        pbc, mask = self.graph.pbc[0], self.graph.atom_mask
        if self.graph.open_mesh is not None:
            return self.graph.open_mesh.serves(positions, mask)
        if self.largest_strain is None:
            return jnp.asarray(True)
        if self.tails is not None:
            repeat = self.graph.repeat[0]
            normal = plane_normal(cell, pbc)
            apart = keeps_copies_apart(positions, mask, normal, repeat, tails=self.tails)
            return jnp.all(pbc) | apart
        highest = jnp.max(jnp.where(mask[:, None], positions, -jnp.inf), axis=0)
        extent = highest - jnp.min(jnp.where(mask[:, None], positions, jnp.inf), axis=0)
        needed = (2.0 * LEAST_BOX) * jax.lax.stop_gradient(extent)
        return jnp.any(pbc) | jnp.all(needed <= (1.0 + _ROUND_OFF) * jnp.diagonal(cell))

    @jax.jit
    def is_valid(
        self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]
    ) -> Bool[Array, ""]:
        """Whether energies at these positions are exact; false if positions are not finite."""
        fresh = self.skin_used(positions, cell) <= 1.0
        serves = self.serves_cell(cell) & self.serves_extent(positions, cell)
        serves &= self.has_images(cell)
        return fresh & serves & ~self.overflow

    def update(
        self,
        positions: Float[Array, "atoms 3"],
        cell: Float[Array, "3 3"] | None = None,
        *,
        renewed_at: float = RENEWED_AT,
    ) -> Neighbours:
        """Neighbours at new positions: the same ones until most of the skin is used up.

        Shapes stay, so this can be part of a compiled loop. If what is found does not fit,
        ``overflow`` is set.

        Args:
            positions: Å.
            cell: Å; by default that of the last search.
            renewed_at: part of the skin that may be used up; 1 where the next energy is asked for
                at these very positions.
        """
        dtype = self.graph.positions.dtype
        positions = jnp.asarray(positions, dtype)
        cell = self.cell if cell is None else jnp.asarray(cell, dtype)
        return self._update(positions, cell, renewed_at)

    @functools.partial(jax.jit, static_argnames="renewed_at")
    def _update(self, positions: Array, cell: Array, renewed_at: float) -> Neighbours:
        is_fresh = self.skin_used(positions, cell) <= renewed_at
        return jax.lax.cond(is_fresh, lambda: self, lambda: self._search_again(positions, cell))

    def _search_again(self, positions: Array, cell: Array) -> Neighbours:
        graph = self.graph
        reach = self.cutoff + self.skin
        box = self.box_of(cell)
        senders, shifts, mask, most = search(
            positions,
            box,
            graph.pbc[0],
            reach,
            images=self.images,
            capacity=graph.neighbours_per_atom,
            mask=graph.atom_mask,
        )
        needed = jnp.where(graph.pbc[0], _images_needed(box, reach), 0)
        return dataclasses.replace(
            self,
            graph=graph.replace(
                positions=positions,
                cell=cell[None],
                senders=senders.reshape(-1),
                cell_shifts=shifts.reshape(-1, 3),
                edge_mask=mask.reshape(-1),
            ),
            overflow=self.overflow
            | (most > graph.neighbours_per_atom)
            | jnp.any(needed > jnp.asarray(self.images, jnp.int32))
            | ~self.serves_extent(positions, cell),
        )

    def box_of(self, cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
        """The cell with vectors of open directions, which may be zero, replaced by fixed ones."""
        return jnp.where(self.graph.pbc[0][:, None], cell, self.search_box)


def search(
    positions: Float[Array, "atoms 3"],
    box: Float[Array, "3 3"],
    pbc: Bool[Array, "3"],
    cutoff: float,
    *,
    images: tuple[int, int, int],
    capacity: int,
    mask: Bool[Array, "atoms"] | None = None,
) -> tuple[
    Int[Array, "atoms capacity"],
    Int[Array, "atoms capacity 3"],
    Bool[Array, "atoms capacity"],
    Int[Array, ""],
]:
    """Every pair within the cutoff, by trying all pairs: for up to a few thousand atoms.

    The order is that of `mace_scf_jax.data.structure.neighbour_list`.

    Args:
        positions: Å.
        box: rows: lattice vectors along periodic directions, any others along open ones, Å.
        pbc: periodic directions.
        cutoff: Å.
        images: periodic images to try in each direction beyond the nearest; zero where open.
        capacity: room for neighbours of each atom.
        mask: which atoms there are; None for all.

    Returns:
        Senders and cell shifts of the edges that each atom receives (vector = r_receiver -
        r_sender + shift @ box), which of them there are, and the largest number found.
    """
    num_atoms = positions.shape[0]
    ranges = [range(-most, most + 1) for most in images]
    offsets = jnp.asarray(np.array(list(itertools.product(*ranges)), dtype=np.int32))
    to_fractional = jnp.linalg.inv(box)
    exists = jnp.ones(num_atoms, bool) if mask is None else mask

    def received_by(atom: Int[Array, ""]):
        difference = positions[atom] - positions
        nearest = jnp.where(pbc, -jnp.round(difference @ to_fractional), 0.0).astype(jnp.int32)
        shifts = (nearest[:, None, :] + offsets).reshape(-1, 3)
        senders = jnp.repeat(jnp.arange(num_atoms, dtype=jnp.int32), len(offsets))
        vectors = difference[senders] + shifts.astype(box.dtype) @ box
        is_itself = (senders == atom) & jnp.all(shifts == 0, axis=-1)
        within = (jnp.sum(vectors**2, axis=-1) < cutoff**2) & ~is_itself
        within &= exists[atom] & exists[senders]
        (chosen,) = jnp.nonzero(within, size=capacity, fill_value=0)
        count = jnp.sum(within, dtype=jnp.int32)
        shells = shell(jnp.sqrt(jnp.sum(vectors[chosen] ** 2, axis=-1)))
        is_found = jnp.arange(capacity, dtype=jnp.int32) < count
        chosen = chosen[jnp.argsort(jnp.where(is_found, shells, jnp.iinfo(jnp.int32).max))]
        return (
            jnp.where(is_found, senders[chosen], num_atoms - 1),
            jnp.where(is_found[:, None], shifts[chosen], 0),
            is_found,
            count,
        )

    atoms = jnp.arange(num_atoms, dtype=jnp.int32)
    at_once = max(1, min(num_atoms, _PAIRS_IN_MEMORY // (num_atoms * len(offsets))))
    senders, shifts, found, counts = jax.lax.map(received_by, atoms, batch_size=at_once)
    return senders, shifts, found, jnp.max(counts)


_PAIRS_IN_MEMORY = 2**22


def images_needed(
    box: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"], cutoff: float
) -> tuple[int, int, int]:
    """Periodic images within a cutoff beyond the nearest one, in each direction of a box."""
    needed = np.where(pbc, np.asarray(_images_needed(jnp.asarray(box), cutoff)), 0)
    return tuple(int(number) for number in needed)


def _images_needed(box: Float[Array, "3 3"], cutoff: float) -> Int[Array, "3"]:
    # Differences of at most half a vector, and planes of the lattice 1/|b| apart.
    reciprocal = jnp.linalg.inv(box).T
    distances = 1.0 / jnp.sqrt(jnp.sum(reciprocal**2, axis=-1))
    return jnp.floor(cutoff / distances + 0.5).astype(jnp.int32)


def _stretch(change: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Upper bound √(‖F‖₁ ‖F‖∞) of the factor by which F lengthens a vector, exact if diagonal."""
    magnitudes = jnp.abs(change)
    return jnp.sqrt(jnp.max(jnp.sum(magnitudes, axis=0)) * jnp.max(jnp.sum(magnitudes, axis=1)))
