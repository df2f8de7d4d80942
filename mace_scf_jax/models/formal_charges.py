"""Formal charges of the atoms of a batch, by element or from the data."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.settings import ModelSettings

FORMAL_CHARGES_INPUT = "charges"
"""Per-atom input that holds formal charges."""


def formal_charges(settings: ModelSettings, graph: Graph) -> Float[Array, "atoms"]:
    """Formal charge of every atom in e; zero for padding atoms.

    Args:
        settings: `formal_charges` of each element, or None for those of the data.
        graph: the batch.
    """
    if settings.formal_charges is None:
        charges = jnp.asarray(graph.atom_data[FORMAL_CHARGES_INPUT])
    else:
        by_element = jnp.asarray(settings.formal_charges, graph.positions.dtype)
        charges = by_element[graph.species]
    return jnp.where(graph.atom_mask, charges, 0.0)
