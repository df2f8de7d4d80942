"""How the multipoles of small graphs answer each other, ∂F/∂p, as a matrix of each graph.

An atom of a one-body update answers the potential v at its own site, and v is linear in the
multipoles: F(p) = G(T p + ...), site by site. So ∂F/∂p = (∂G/∂v) T costs as many derivatives of G
as an atom has field features, and no sum over pairs beyond those that T is made of.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.models.families.fixed_point.model import FixedPoint, LocalState

MOST_UNKNOWNS = 128
"""Of a graph, padding included, whose matrix is made. Larger ones cost more than they save."""


def response_slopes(
    module: FixedPoint,
    params: dict[str, Any],
    local: LocalState,
    multipoles: Float[Array, "atoms components"],
    levels: Float[Array, "graphs"],
) -> Float[Array, "graphs unknowns unknowns"] | None:
    """∂F/∂p of every graph, with rows and columns (slot, component); not differentiated.

    Args:
        multipoles: p in e Å^l, where F is linearised.
        levels: Fermi levels there in eV.

    Returns:
        The matrices; None for many-body updates, and for batches whose T is not in memory or whose
        graphs have room for more than `MOST_UNKNOWNS` unknowns.
    """
    matrices, graph = local.response.matrices, local.graph
    if not module.settings.own.is_one_body:
        return None
    if matrices is None or matrices.shape[-1] > MOST_UNKNOWNS:
        return None
    params, local, multipoles, levels, matrices = jax.lax.stop_gradient(
        (params, local, multipoles, levels, matrices)
    )
    variables = {"params": params}
    features = module.apply(
        variables, local, multipoles, levels[graph.atom_graph], method="field_features"
    )

    def answer(features: Array) -> Array:
        return module.apply(variables, local, features, method="answer")

    def derivative(direction: Float[Array, "features"]) -> Float[Array, "atoms components"]:
        return jax.jvp(answer, (features,), (jnp.broadcast_to(direction, features.shape),))[1]

    norms = jnp.asarray(module.feature_norms(), features.dtype)
    of_sites = graph.to_slots(jax.vmap(derivative, out_axes=-1)(jnp.diag(1.0 / norms)))
    num_graphs, num_slots, _, num_features = of_sites.shape
    rows = matrices.reshape(num_graphs, num_slots, num_features, -1)
    slopes = jnp.einsum("gscf,gsfn->gscn", of_sites, rows, precision=jax.lax.Precision.HIGHEST)
    return slopes.reshape(num_graphs, -1, matrices.shape[-1])
