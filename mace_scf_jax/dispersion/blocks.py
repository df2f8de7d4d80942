"""Sums over all pairs of atoms and their images, in blocks of atoms that are close together.

Atoms are moved into the cell and packed into blocks of equal numbers, cut along x, y and z in
turn (S. T. Leutenegger et al., ICDE 1997, for trees of boxes). Pairs of blocks whose boxes are
further apart than the cutoff are left out, the others are done a chunk at a time. There is no list
to go stale, and shapes depend on numbers of atoms and images only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.graph import Graph

ATOMS_IN_BLOCK = 64
"""Most atoms in a block; small blocks leave out more pairs, large ones need fewer steps."""
ITSELF = 1e-12
"""Å²; squared distance up to which two atoms are the same one."""
_PAIRS_AT_ONCE = {"cpu": 2**16}
_PAIRS_AT_ONCE_ELSEWHERE = 2**22
_INNER_STEPS = 8
"""Steps that are left out together."""
_FEW_STEPS = 256
"""Number of steps up to which each is left out by itself."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """Atoms of every structure in blocks."""

    atoms: Int[Array, "graphs blocks size"]
    """Index of each atom in the batch."""
    mask: Bool[Array, "graphs blocks size"]
    positions: Float[Array, "graphs blocks size 3"]
    """Å, in the cell."""

    def take(self, values: Array) -> Array:
        """Values of the atoms of a batch in blocks, those of no atom zero."""
        mask = self.mask.reshape(self.mask.shape + (1,) * (values.ndim - 1))
        return jnp.where(mask, values[self.atoms], jnp.zeros((), values.dtype))

    def with_positions(self, *values: Float[Array, "atoms _"]) -> Array:
        """Positions and values of the atoms side by side, [graphs, blocks, size, 3 + n]: what is
        read together costs little more than what is read alone."""
        precise = self.positions.dtype
        taken = (self.take(each).astype(precise) for each in values)
        return jnp.concatenate([self.positions, *taken], axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of blocks of one structure, the second moved by a lattice translation."""

    graph: Int[Array, "pairs"]
    first: Int[Array, "pairs"]
    second: Int[Array, "pairs"]
    translation: Float[Array, "pairs 3"]
    """Å."""
    exists: Bool[Array, "pairs"]

    def ends(self, values: Float[Array, "graphs blocks size n"]) -> tuple[Array, Array]:
        """Values of the atoms of the first and of the second blocks, [pairs, size, n]."""
        return values[self.graph, self.first], values[self.graph, self.second]

    def squared_distances(
        self, first: Float[Array, "pairs size n"], second: Float[Array, "pairs size n"]
    ) -> Float[Array, "pairs size size"]:
        """Squared distances in Å² of atoms whose positions are the first three of their values."""
        moved = second[..., :3] + self.translation[:, None, :]
        return sum(
            (first[:, :, None, axis] - moved[:, None, :, axis]) ** 2 for axis in range(3)
        )  # fused, where a sum over an axis of three is not

    def counted(self, blocks: Blocks, squared: Array, cutoff: float) -> Bool[Array, "..."]:
        """Which of the pairs of atoms are counted."""
        first = blocks.mask[self.graph, self.first] & self.exists[:, None]
        second = blocks.mask[self.graph, self.second]
        both = first[:, :, None] & second[:, None, :]
        return both & (squared <= cutoff**2) & (squared > ITSELF)

    @property
    def weight(self) -> Float[Array, "pairs"]:
        """How often a pair of blocks stands for each of its pairs of atoms: those of a block with
        itself are there in both orders."""
        return jnp.where(self.first == self.second, 0.5, 1.0)


def blocks_of(graph: Graph) -> Blocks:
    """Atoms of a batch packed into blocks."""
    slots = graph.slots.shape[1]
    cuts = math.ceil((slots / ATOMS_IN_BLOCK) ** (1 / 3))
    size = math.ceil(slots / cuts**3)
    padding = ((0, 0), (0, cuts**3 * size - slots))
    atoms = jnp.pad(jnp.asarray(graph.slots), padding)
    mask = jnp.pad(jnp.asarray(graph.slot_mask), padding)
    positions = _in_cell(graph)
    where = jax.lax.stop_gradient(jnp.where(mask[..., None], positions[atoms], jnp.inf))
    order = jax.vmap(lambda points: _packed(points, cuts, size))(where)
    atoms = jnp.take_along_axis(atoms, order, axis=1).reshape(-1, cuts**3, size)
    mask = jnp.take_along_axis(mask, order, axis=1).reshape(-1, cuts**3, size)
    return Blocks(atoms, mask, positions[atoms])


def _in_cell(graph: Graph) -> Float[Array, "atoms 3"]:
    """Positions moved by lattice vectors into the cell, Å."""
    positions, pbc = jnp.asarray(graph.positions), jnp.asarray(graph.pbc)
    cell = jnp.where(pbc[:, :, None], graph.cell, 0.0)
    box = jnp.where(pbc[:, :, None], graph.cell, graph.images.cell)
    crossed = jnp.stack([jnp.cross(box[:, i - 2], box[:, i - 1]) for i in range(3)], axis=1)
    dual = crossed / jnp.sum(crossed[:, :1] * box[:, :1], axis=2, keepdims=True)
    turns = jnp.floor(jnp.einsum("ai,abi->ab", positions, dual[graph.atom_graph]))
    turns = jax.lax.stop_gradient(turns)
    return positions - jnp.einsum("ab,abi->ai", turns, cell[graph.atom_graph])


def lattice_vectors(graph: Graph) -> Float[Array, "graphs images 3"]:
    """The translations of `Graph.images` in Å."""
    cell = jnp.asarray(graph.cell)
    numbers = jnp.asarray(graph.images.translations).astype(cell.dtype)
    return jnp.einsum("gni,gij->gnj", numbers, cell)


def _packed(points: Float[Array, "points 3"], cuts: int, size: int) -> Int[Array, "points"]:
    """Order of points in which each ``size`` of them are close together; infinite ones last."""
    if cuts == 1:
        return jnp.arange(size)
    order = jnp.argsort(points[:, 0]).reshape(cuts, -1)
    for axis in (1, 2):
        within = jnp.argsort(points[order, axis], axis=-1)
        order = jnp.take_along_axis(order, within, axis=-1)
        order = order.reshape(*order.shape[:-1], cuts, -1) if axis == 1 else order
    return order.reshape(-1)


def sum_over_pairs(
    graph: Graph,
    blocks: Blocks,
    cutoff: float,
    part: Callable[[Pairs], Any],
) -> Any:
    """Sum of what pairs of blocks contribute, over all that reach within the cutoff.

    Derivatives compute each chunk again rather than keeping it.

    Args:
        graph: with `Graph.images`.
        blocks: its atoms.
        cutoff: Å.
        part: what some pairs contribute together: a pytree of arrays.
    """
    num_blocks, size = blocks.atoms.shape[1:]
    first, second = np.triu_indices(num_blocks)
    translations = lattice_vectors(graph)
    near = _boxes_near(blocks, first, second, translations, graph.images.mask, cutoff)
    total = near.size
    at_once = _PAIRS_AT_ONCE.get(jax.default_backend(), _PAIRS_AT_ONCE_ELSEWHERE)
    chunk = max(1, min(total, at_once // size**2))
    of_first, of_second = jnp.asarray(first), jnp.asarray(second)

    def of_items(item: Array, exists: Array) -> Any:
        graph_of = item // (near.shape[1] * near.shape[2])
        pair, image = item // near.shape[2] % near.shape[1], item % near.shape[2]
        return part(
            Pairs(
                graph=graph_of,
                first=of_first[pair],
                second=of_second[pair],
                translation=translations[graph_of, image],
                exists=exists,
            )
        )

    if total <= chunk:  # nothing to leave out
        return of_items(jnp.arange(total, dtype=jnp.int32), near.reshape(-1))
    (found,) = jnp.nonzero(near.reshape(-1), size=total, fill_value=0)
    count = jnp.sum(near, dtype=jnp.int32)
    return sum_of_first(
        lambda number, item: of_items(item, number < count),
        found.astype(jnp.int32),
        count,
        at_once=chunk,
    )


def sum_of_first(
    part: Callable[[Int[Array, "items"], Int[Array, "items"]], Any],
    items: Int[Array, "total"],
    count: Int[Array, ""],
    *,
    at_once: int,
) -> Any:
    """Sum of what the first ``count`` of some items contribute, in steps that can be left out.

    Derivatives compute every step again rather than keeping it.

    Args:
        part: what some items contribute together, a pytree of arrays; of their numbers, of which
            those from ``count`` on do not count, and the items.
        at_once: how many items make a step.
    """
    total = len(items)
    inner = _INNER_STEPS if total > _FEW_STEPS * at_once else 1
    outer = math.ceil(total / (at_once * inner))
    padding = outer * inner * at_once - total
    numbers = jnp.pad(jnp.arange(total, dtype=jnp.int32), (0, padding), constant_values=total)
    shape = (outer, inner, at_once)
    steps = numbers.reshape(shape), jnp.pad(items, (0, padding)).reshape(shape)
    shapes = jax.eval_shape(part, *(each[0, 0] for each in steps))
    nothing = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shapes)

    def step_of(some: Callable[[Array, Array], Any]) -> Callable[..., tuple[Any, None]]:
        # around the condition: what it keeps for derivatives would be kept of every step
        @jax.checkpoint
        def unless_done(number: Array, item: Array) -> Any:
            is_done = number.ravel()[0] >= count
            return jax.lax.cond(is_done, lambda: nothing, lambda: some(number, item))

        def step(sums: Any, here: tuple[Array, Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, unless_done(*here)), None

        return step

    if inner == 1:  # compiled in half the time
        numbers, items = (each[:, 0] for each in steps)
        return jax.lax.scan(step_of(part), nothing, (numbers, items))[0]

    def several(number: Array, item: Array) -> Any:
        return jax.lax.scan(step_of(part), nothing, (number, item))[0]

    return jax.lax.scan(step_of(several), nothing, steps)[0]


def _boxes_near(
    blocks: Blocks,
    first: np.ndarray,
    second: np.ndarray,
    translations: Float[Array, "graphs images 3"],
    mask: Bool[Array, "graphs images"],
    cutoff: float,
) -> Bool[Array, "graphs pairs images"]:
    """Whether the boxes around two blocks, the second moved, are within the cutoff."""
    positions = jax.lax.stop_gradient(blocks.positions)
    translations = jax.lax.stop_gradient(translations)
    lowest = jnp.min(jnp.where(blocks.mask[..., None], positions, jnp.inf), axis=2)
    highest = jnp.max(jnp.where(blocks.mask[..., None], positions, -jnp.inf), axis=2)
    squared = jnp.zeros((), positions.dtype)
    for axis in range(3):
        moved = translations[:, None, :, axis]
        low, high = lowest[..., axis], highest[..., axis]
        above = low[:, first, None] - high[:, second, None] - moved
        below = low[:, second, None] - high[:, first, None] + moved
        squared = squared + jnp.maximum(0.0, jnp.maximum(above, below)) ** 2
    return (squared <= cutoff**2) & jnp.asarray(mask)[:, None, :]
