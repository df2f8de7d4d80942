"""Descriptors of geometries that do not change, computed once with what their derivatives need.

In training the geometries are fixed, and forces are linear in the derivative of the energy by the
descriptors. So descriptors are values, and their derivatives by edge vectors v are the stored ones:

    dR_n = Σ_j w_j R_n'(r_j) v̂_j·dv_j,    dA_n = Σ_j (∂A_n/∂v_j)·dv_j.

R_n' is one polynomial for each edge, computed when it is needed; the sum for A_n runs over the
edges within the angular cutoff, which are the first of each atom.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.functions import (
    angular_coefficients,
    cosine_cutoff,
    descriptors,
    edge_weights,
)
from mace_scf_jax.backbones.chebyshev.harmonics import real_harmonics
from mace_scf_jax.data.collate import padded
from mace_scf_jax.data.sets import StructureSet, StructuresInMemory
from mace_scf_jax.data.stack import ANGULAR_DERIVATIVES, DESCRIPTORS, Stack
from mace_scf_jax.data.table import Ragged
from mace_scf_jax.graph import Graph

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Structures whose descriptors are computed at once."""
BYTES_OF_EDGE = 20
"""Sender, receiver and cell shift."""
COLUMNS = (DESCRIPTORS, ANGULAR_DERIVATIVES)


def stored_descriptors(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "atoms features"]:
    """The stored descriptors of a batch as a function of its edge vectors, once differentiable.

    Args:
        graph: a batch with descriptors.
        elements: atomic numbers that the species of the batch index.
    """
    if graph.descriptors is None:
        raise ValueError("stored descriptors: found a batch without any")
    if graph.descriptors.angular is None:
        return jnp.asarray(graph.descriptors.values)

    @jax.custom_jvp
    def features(vectors: Array, graph: Graph) -> Array:
        return jnp.asarray(graph.descriptors.values)  # type: ignore[union-attr]

    @features.defjvp
    def derivative(primals, tangents):
        vectors, graph = primals
        change = _change(graph, vectors, tangents[0], descriptor, elements)
        return features(vectors, graph), change

    return features(graph.edge_vectors(), graph)


def _change(
    graph: Graph,
    vectors: Float[Array, "edges 3"],
    changes: Float[Array, "edges 3"],
    descriptor: Descriptor,
    elements: tuple[int, ...],
) -> Float[Array, "atoms features"]:
    """Change of the descriptors with changes of the edge vectors."""
    stored = graph.descriptors.angular  # type: ignore[union-attr]
    lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    weights = edge_weights(graph, descriptor, elements)
    stretch = jnp.sum(vectors * changes, axis=-1) / lengths
    slopes = _radial_slopes(lengths, descriptor)
    radial = graph.sum_incoming_products(weights * stretch[:, None], slopes)
    by_atom = changes.reshape(graph.num_atoms, -1, 3)
    inner = min(stored.shape[1], by_atom.shape[1])  # other batches may have more edges
    angular = jnp.einsum("aknx,akx->an", stored[:, :inner], by_atom[:, :inner])
    shape = (graph.num_atoms, weights.shape[1], descriptor.ang_order + 1)
    return jnp.concatenate([radial, angular.reshape(shape)], axis=-1).reshape(graph.num_atoms, -1)


def _radial_slopes(
    lengths: Float[Array, "edges"], descriptor: Descriptor
) -> Float[Array, "edges orders"]:
    """Derivatives by r of F_n = T_n(2r/R - 1) f(r; R) in 1/Å, by the recurrence of T_n.

    In a loop: unrolled, XLA would compute every order from the beginning.
    """
    cutoff = descriptor.rad_cutoff
    x, dx = 2.0 * lengths / cutoff - 1.0, 2.0 / cutoff
    damping, slope = jax.jvp(
        lambda r: cosine_cutoff(r, cutoff), (lengths,), (jnp.ones_like(lengths),)
    )

    def next_order(known: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], Array]:
        before, value, slope_before, slope = known
        following = 2.0 * x * value - before
        slope_following = 2.0 * (dx * value + x * slope) - slope_before
        return (value, following, slope, slope_following), slope_before

    first = (damping, x * damping, slope, dx * damping + x * slope)
    slopes = jax.lax.scan(next_order, first, length=descriptor.rad_order + 1)[1]
    return jnp.moveaxis(slopes, 0, -1)


def angular_derivatives(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...], *, inner: int
) -> Float[Array, "atoms inner functions 3"]:
    """∂A_n/∂v of every atom by the vectors of its first edges in 1/Å, plain and weighted n.

    Args:
        graph: a batch in the layout "per_atom".
        elements: atomic numbers that the species of the batch index.
        inner: number of edges of each atom within the angular cutoff, at most.
    """
    order, cutoff = descriptor.ang_order, descriptor.ang_cutoff
    vectors, weights = graph.edge_vectors(), edge_weights(graph, descriptor, elements)
    kinds = weights.shape[1]

    def damped_harmonics(vectors: Array) -> tuple[Array, Array]:
        lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        damping = cosine_cutoff(lengths, cutoff)
        return damping[:, None] * real_harmonics(vectors / lengths[:, None], order), damping

    def of_atoms(values: Array) -> Array:
        return values.reshape(graph.num_atoms, -1, *values.shape[1:])[:, :inner]

    harmonics, damping = damped_harmonics(vectors)
    moments = graph.sum_incoming_products(weights, harmonics)
    coefficients = jnp.asarray(angular_coefficients(order), moments.dtype)
    own = of_atoms(weights)
    slopes = []
    for axis in range(3):
        step = jnp.zeros_like(vectors).at[:, axis].set(1.0)
        _, (change, damping_change) = jax.jvp(damped_harmonics, (vectors,), (step,))
        pairs = jnp.einsum("asc,akc,nc->aksn", moments, of_atoms(change), coefficients)
        square = of_atoms(damping * damping_change)[..., None, None]
        slopes.append(own[..., None] * (pairs - own[..., None] * square))
    shape = (graph.num_atoms, inner, kinds * (order + 1), 3)
    return jnp.stack(slopes, axis=-1).reshape(shape)


def with_descriptors(
    structures: StructureSet,
    descriptor: Descriptor,
    elements: tuple[int, ...],
    *,
    dtype: DTypeLike,
    derivatives: bool,
    most_bytes: int | None = None,
) -> StructuresInMemory | None:
    """Structures in memory with their descriptors; None where these would take too much of it.

    Args:
        structures: with edges up to the cutoff of the descriptor.
        elements: atomic numbers that their species index.
        dtype: in which descriptors are kept; they are computed in double precision.
        derivatives: whether to keep edges and what derivatives need; else there are no edges.
        most_bytes: that descriptors, derivatives and edges may take; None for no limit.
    """
    most, parts = min(AT_ONCE, len(structures)), _parts(structures)
    inner = 0
    if derivatives:
        inner = max(1, *(_most_within(part, descriptor.ang_cutoff) for part in parts()))
    atoms, edges = int(structures.sizes.atoms.sum()), int(structures.sizes.edges.sum())
    of_atom = descriptor.size + 3 * inner * descriptor.num_kinds * (descriptor.ang_order + 1)
    needed = atoms * of_atom * np.dtype(dtype).itemsize + derivatives * edges * BYTES_OF_EDGE
    if most_bytes is not None and needed > most_bytes:
        return None
    logger.info(
        "Features%s of %d atoms are computed once: %.0f MB",
        " and their derivatives" if derivatives else "",
        atoms,
        needed / 1e6,
    )
    sizes = structures.sizes.of_any_batch(most, "per_atom")

    @jax.jit
    def compute(graph: Graph) -> tuple[Array, ...]:
        values = descriptors(graph, descriptor, elements)
        if not derivatives:
            return (values,)
        return values, angular_derivatives(graph, descriptor, elements, inner=inner)

    def described() -> Iterator[Stack]:
        for part in parts():
            part = by_distance(part) if derivatives else part
            found = compute(padded(part, sizes, labels=False))
            columns = [np.asarray(column, dtype)[: part.atoms.total] for column in found]
            part = part.with_atoms(**dict(zip(COLUMNS, columns, strict=False)))
            yield part if derivatives else part.without_edges()

    configurations = [structures[index].configuration for index in range(len(structures))]
    return StructuresInMemory.of_stack(Stack.concatenate(described()), configurations)


def _parts(structures: StructureSet) -> Callable[[], Iterator[Stack]]:
    """The structures some at a time, whenever they are asked for."""
    starts = range(0, len(structures), AT_ONCE)
    return lambda: (
        structures.stack(np.arange(start, min(start + AT_ONCE, len(structures))))
        for start in starts
    )


def _most_within(stacked: Stack, cutoff: float) -> int:
    """How many edges within the cutoff (Å) an atom has at most."""
    receivers, lengths = _receivers_and_lengths(stacked)
    return int(np.bincount(receivers[lengths < cutoff], minlength=1).max())


def by_distance(stacked: Stack) -> Stack:
    """Structures whose edges are sorted by receiver, then length."""
    receivers, lengths = _receivers_and_lengths(stacked)
    order = np.lexsort((lengths, receivers))
    edges = {name: column[order] for name, column in stacked.edges.entries.items()}
    return dataclasses.replace(stacked, edges=Ragged(stacked.edges.counts, edges))


def _receivers_and_lengths(stacked: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Receiver of each edge, counted over all structures, and its length in Å."""
    edges, atoms = stacked.edges, stacked.atoms
    owner = np.repeat(np.arange(len(stacked)), edges.counts)
    senders, receivers = (edges[name] + atoms.first[owner] for name in ("senders", "receivers"))
    shifts = np.einsum("ei,eij->ej", edges["cell_shifts"], stacked.cell[owner])
    vectors = atoms["positions"][receivers] - atoms["positions"][senders] + shifts
    return receivers, np.linalg.norm(vectors, axis=1)
