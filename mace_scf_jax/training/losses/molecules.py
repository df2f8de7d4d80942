"""Losses of whole molecules: forces summed over the atoms that share a ``molID`` in a structure.

They weigh the forces between molecules, which are small next to those inside them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.losses.terms import (
    Mean,
    Prediction,
    atoms_per_graph,
    mean,
    property_weight,
    register_loss,
)


@register_loss("virial of whole molecules", predictions=("forces",), labels=("forces", "molID"))
def cluster_virial(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w v (Σ_m R_m·(F_m - F_m,ref))², in eV².

    F_m is the summed force and R_m the plain mean of the positions of molecule m as they are given:
    molecules must not be cut by the cell. v is the weight of the label ``molID``.
    """
    weight = property_weight(graph, "molID")
    return mean(weight * _virial_error(prediction, graph) ** 2, graph.graph_mask)


@register_loss(
    "virial of whole molecules, per atom", predictions=("forces",), labels=("forces", "molID")
)
def cluster_virial_per_atom(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w v (Σ_m R_m·(F_m - F_m,ref))² / N, in eV²/atom."""
    weight = property_weight(graph, "molID") / atoms_per_graph(graph)
    return mean(weight * _virial_error(prediction, graph) ** 2, graph.graph_mask)


@register_loss("forces on whole molecules", predictions=("forces",), labels=("forces", "molID"))
def molecular_forces(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and components of w v Σ_m (F_m - F_m,ref)² / N, in (eV/Å)²/atom.

    v is the weight of the forces.
    """
    molecules = molecule_of_atom(graph)
    error = _sum(_force_error(prediction, graph), molecules, graph) ** 2
    weight = property_weight(graph, "forces") / atoms_per_graph(graph)
    return mean(weight[:, None] * _sum_molecules(error, molecules, graph), graph.graph_mask)


def molecule_of_atom(graph: Graph) -> Int[Array, "atoms"]:
    """A number for the molecule of each atom, different for every molecule of the batch.

    Atoms with the same ``molID`` form one molecule within their graph, and another in each graph.
    """
    labels = graph.labels["molID"]
    order = jnp.lexsort((labels, graph.atom_graph))
    sorted_graph, sorted_label = graph.atom_graph[order], labels[order]
    is_next = (jnp.diff(sorted_graph) != 0) | (jnp.diff(sorted_label) != 0)
    numbers = jnp.concatenate([jnp.zeros(1, dtype=jnp.int32), jnp.cumsum(is_next, dtype=jnp.int32)])
    return jnp.zeros_like(numbers).at[order].set(numbers)


def _force_error(prediction: Prediction, graph: Graph) -> Float[Array, "atoms 3"]:
    """F - F_ref, zero for padding atoms."""
    error = prediction["forces"] - graph.labels["forces"]
    return jnp.where(graph.atom_mask[:, None], error, jnp.zeros_like(error))


def _virial_error(prediction: Prediction, graph: Graph) -> Float[Array, "graphs"]:
    """Σ_m R_m·(F_m - F_m,ref) of each graph."""
    molecules = molecule_of_atom(graph)
    positions = graph.positions.astype(graph.dtype)
    sizes = _sum(jnp.ones_like(positions[:, :1]), molecules, graph)
    centres = _sum(positions, molecules, graph) / jnp.maximum(sizes, jnp.ones_like(sizes))
    products = jnp.sum(
        centres * _sum(_force_error(prediction, graph), molecules, graph), axis=-1, keepdims=True
    )
    return _sum_molecules(products, molecules, graph)[:, 0]


def _sum(
    values: Float[Array, "atoms columns"], molecules: Int[Array, "atoms"], graph: Graph
) -> Float[Array, "atoms columns"]:
    """Sum over the atoms of each molecule; there are at most as many molecules as atoms."""
    return jax.ops.segment_sum(values, molecules, num_segments=graph.num_atoms)


def _sum_molecules(
    values: Float[Array, "atoms columns"], molecules: Int[Array, "atoms"], graph: Graph
) -> Float[Array, "graphs columns"]:
    """Sum over the molecules of each graph."""
    owner = jax.ops.segment_max(graph.atom_graph, molecules, num_segments=graph.num_atoms)
    real = owner >= 0
    return jax.ops.segment_sum(
        jnp.where(real[:, None], values, jnp.zeros_like(values)),
        jnp.where(real, owner, jnp.zeros_like(owner)),
        num_segments=graph.num_graphs,
    )
