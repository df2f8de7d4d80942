"""Descriptors of geometries that do not change, computed once with their derivatives.

In training the geometries are fixed, and forces are linear in the derivative of the energy by the
descriptors. So descriptors are values, and their derivatives are stored. What depends on positions
x and cell h is the vector of each edge, v = x_i - x_j + n·h from the sender j to the receiver i, so

    dG_i = Σ_j D_ij·(dx_i - dx_j) + C_i:dh,    D_ij = Σ_n ∂G_i/∂v,    C_i = Σ_jn n ⊗ ∂G_i/∂v,

where D_ij is the sum over all images of the atom j that i sees. In a small cell these are many, and
pairs of atoms are few.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from mace_scf_jax.backbones.chebyshev.angular import angular_coefficients
from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.functions import descriptors, edge_weights
from mace_scf_jax.backbones.chebyshev.polynomials import chebyshev_polynomials, cosine_cutoff
from mace_scf_jax.data.atom_features import AtomFeatures
from mace_scf_jax.data.collate import padded
from mace_scf_jax.data.pairs import number_of_pairs, pairs_of_atoms
from mace_scf_jax.data.sets import StructureSet, StructuresInMemory
from mace_scf_jax.data.sizes import StructureSizes, merge
from mace_scf_jax.data.stack import CELL_DERIVATIVES, DESCRIPTORS, PAIR_DERIVATIVES, Stack
from mace_scf_jax.data.table import Ragged
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.harmonics import real_harmonics

logger = logging.getLogger(__name__)

ATOMS_AT_ONCE = 256
"""Atoms whose descriptors are computed at once, unless a structure has more."""
BYTES_OF_PAIR = 20
"""Sender, receiver and cell shift."""


def descriptors_of(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "atoms features"]:
    """The descriptors that are stored with a batch, or else computed from its edges.

    Args:
        graph: a batch with descriptors, or with edges that reach the cutoff.
        descriptor: of the stored ones, too.
        elements: atomic numbers that the species of the batch index.
    """
    if graph.descriptors is None:
        return descriptors(graph, descriptor, elements)
    return stored_descriptors(graph)


def stored_descriptors(graph: Graph) -> Float[Array, "atoms features"]:
    """The stored descriptors of a batch as a function of positions and cells, once differentiable.

    Args:
        graph: a batch with descriptors.

    Raises:
        ValueError: the batch has no descriptors; or they are to be differentiated by positions,
            strain or cells, and their derivatives are not there.
    """
    if graph.descriptors is None:
        raise ValueError("stored descriptors: found a batch without any")
    stored = graph.descriptors
    by_vector, by_cell = stored.by_vector, stored.by_cell

    @jax.custom_jvp
    def features(positions: Array, cell: Array) -> Array:
        return jnp.asarray(stored.values)

    @features.defjvp
    def derivative(primals, tangents):
        if by_vector is None or by_cell is None:
            raise ValueError(
                "stored descriptors: found a batch without their derivatives, expected them where "
                "forces or stress are asked for"
            )
        moves, cell_change = tangents
        vectors = (graph.at_receivers(moves) - moves[graph.senders]).astype(graph.dtype)
        of_pairs = by_vector.reshape(graph.num_atoms, -1, *by_vector.shape[1:])
        change = jnp.einsum("akxf,akx->af", of_pairs, vectors.reshape(of_pairs.shape[:3]))
        of_cell = cell_change.astype(graph.dtype)[graph.atom_graph]
        return features(*primals), change + jnp.einsum("anxf,anx->af", by_cell, of_cell)

    return features(jnp.asarray(graph.positions), jnp.asarray(graph.cell))


def derivatives_by_vectors(
    graph: Graph, descriptor: Descriptor, elements: tuple[int, ...]
) -> Float[Array, "edges 3 features"]:
    """∂G/∂v of the descriptors of the receiver of each edge by its vector, in 1/Å.

    Args:
        graph: a batch in the layout "per_atom".
        descriptor: what to differentiate.
        elements: atomic numbers that the species of the batch index.
    """
    order = descriptor.ang_order
    vectors, weights = graph.edge_vectors(), edge_weights(graph, descriptor, elements)

    def functions(vectors: Array) -> tuple[Array, Array, Array]:
        lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        scaled = 2.0 * lengths / descriptor.rad_cutoff - 1.0
        radial = jnp.stack(chebyshev_polynomials(scaled, descriptor.rad_order), axis=-1)
        radial *= cosine_cutoff(lengths, descriptor.rad_cutoff)[:, None]
        damping = cosine_cutoff(lengths, descriptor.ang_cutoff)
        return radial, damping[:, None] * real_harmonics(vectors / lengths[:, None], order), damping

    _, harmonics, damping = functions(vectors)
    moments = graph.sum_incoming_products(weights, harmonics)
    by_harmonics = jnp.einsum(
        "asc,nc->asnc", moments, jnp.asarray(angular_coefficients(order), moments.dtype)
    )
    kinds, per_atom = weights.shape[1], (graph.num_atoms, -1)

    def along(axis: int) -> Array:
        step = jnp.zeros_like(vectors).at[:, axis].set(1.0)
        _, (radial, change, damping_change) = jax.jvp(functions, (vectors,), (step,))
        pairs = jnp.einsum(
            "asnc,akc->aksn", by_harmonics, change.reshape(*per_atom, harmonics.shape[1])
        )
        itself = weights * (damping * damping_change)[:, None]
        angular = pairs.reshape(-1, kinds, order + 1) - itself[..., None]
        both = jnp.concatenate(
            [jnp.broadcast_to(radial[:, None], (len(radial), kinds, radial.shape[1])), angular],
            axis=-1,
        )
        return (weights[..., None] * both).reshape(len(radial), -1)

    return jnp.stack([along(axis) for axis in range(3)], axis=1)


@dataclasses.dataclass(frozen=True)
class DescriptorFeatures(AtomFeatures):
    """The features of a descriptor.

    Raises:
        ValueError: the descriptor does not know all elements.
    """

    descriptor: Descriptor
    elements: tuple[int, ...]

    def __post_init__(self) -> None:
        self.descriptor.check_elements(self.elements)

    @property
    def size(self) -> int:
        """That of the descriptor."""
        return self.descriptor.size

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters of the descriptor, with symbols for its species."""
        parameters = dataclasses.asdict(self.descriptor)
        return {"descriptor": "Chebyshev"} | parameters | {"species": list(self.descriptor.symbols)}

    def computed(
        self, structures: StructureSet, *, derivatives: bool, dtype: DTypeLike
    ) -> Iterator[Stack]:
        """Give the structures with descriptors; see `AtomFeatures.computed`."""
        descriptor, elements = self.descriptor, self.elements
        parts = list(_parts(structures.sizes))
        sizes = merge(structures.sizes.take(part).of_one_batch("per_atom") for part in parts)

        @jax.jit
        def compute(graph: Graph) -> tuple[Array, ...]:
            values = descriptors(graph, descriptor, elements)
            if not derivatives:
                return (values,)
            by_vector = derivatives_by_vectors(graph, descriptor, elements)
            shifts = jnp.asarray(graph.cell_shifts).astype(by_vector.dtype)
            by_cell = graph.sum_incoming_products(shifts, by_vector.reshape(len(shifts), -1))
            return values, by_cell.reshape(graph.num_atoms, 3, 3, descriptor.size), by_vector

        for rows in parts:
            part = structures.stack(rows)
            graph = padded(part, sizes, labels=False)
            values, *of_change = compute(graph)
            columns = {DESCRIPTORS: values}
            if derivatives:
                by_cell, by_vector = of_change
                columns[CELL_DERIVATIVES] = by_cell
                part = _of_pairs(part, np.asarray(by_vector)[graph.edge_mask], dtype)
            else:
                part = part.without_edges()
            yield part.with_atoms(
                **{
                    name: np.asarray(column, dtype)[: part.atoms.total]
                    for name, column in columns.items()
                }
            )


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

    Their edges are the pairs of different atoms that see each other, with no cell shifts.

    Args:
        structures: with edges up to the cutoff of the descriptor.
        descriptor: what to compute.
        elements: atomic numbers that their species index.
        dtype: in which descriptors are kept; they are computed in double precision.
        derivatives: whether to keep pairs and derivatives; else there are no edges.
        most_bytes: that descriptors, derivatives and pairs may take; None for no limit.
    """
    atoms = int(structures.sizes.atoms.sum())
    pairs = number_of_pairs(structures) if derivatives else 0
    width = np.dtype(dtype).itemsize * descriptor.size
    needed = atoms * width * (10 if derivatives else 1) + pairs * (3 * width + BYTES_OF_PAIR)
    if most_bytes is not None and needed > most_bytes:
        return None
    logger.info(
        "Features%s of %d atoms are computed once: %.0f MB",
        " and their derivatives" if derivatives else "",
        atoms,
        needed / 1e6,
    )
    features = DescriptorFeatures(descriptor, elements)
    described = features.computed(structures, derivatives=derivatives, dtype=dtype)
    configurations = [structures[index].configuration for index in range(len(structures))]
    return StructuresInMemory.of_stack(Stack.concatenate(described), configurations)


def _parts(sizes: StructureSizes) -> Iterator[np.ndarray]:
    """Positions of structures, one after the other, that together have few atoms."""
    part: list[int] = []
    atoms = 0
    for index, count in enumerate(sizes.atoms):
        if part and atoms + count > max(ATOMS_AT_ONCE, int(sizes.atoms.max())):
            yield np.array(part)
            part, atoms = [], 0
        part.append(index)
        atoms += int(count)
    yield np.array(part)


def _of_pairs(
    stacked: Stack, by_vector: Float[np.ndarray, "edges 3 features"], dtype: DTypeLike
) -> Stack:
    """The structures with a pair of atoms for all edges that are images of each other."""
    edges = stacked.edges
    order, first = pairs_of_atoms(stacked)
    structure = np.repeat(np.arange(len(stacked)), edges.counts)
    if len(first):
        by_pair = np.add.reduceat(by_vector[order], first, axis=0).astype(dtype)
    else:
        by_pair = by_vector[:0].astype(dtype)
    chosen = order[first]
    entries = {
        "senders": edges["senders"][chosen],
        "receivers": edges["receivers"][chosen],
        "cell_shifts": np.zeros_like(edges["cell_shifts"][chosen]),
        PAIR_DERIVATIVES: by_pair,
    }
    counts = np.bincount(structure[chosen], minlength=len(stacked))
    return dataclasses.replace(stacked, edges=Ragged(counts, entries))
