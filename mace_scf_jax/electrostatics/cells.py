"""Volume and dual of a cell, as traced functions."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def cell_volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume of a cell (rows are lattice vectors, either handedness), in Å³."""
    return jnp.abs(jnp.sum(cell[0] * jnp.cross(cell[1], cell[2])))


def dual_cell(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Rows b with b_i · a_j = δ_ij: fractional coordinates are r @ dualᵀ, and k = 2π n @ dual."""
    rows = jnp.stack(
        [jnp.cross(cell[1], cell[2]), jnp.cross(cell[2], cell[0]), jnp.cross(cell[0], cell[1])]
    )
    return rows / jnp.sum(cell[0] * rows[0])
