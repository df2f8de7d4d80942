"""Spherical harmonics of edge directions."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def edge_harmonics(
    vectors: Float[Array, "edges 3"], max_degree: int
) -> Float[Array, "edges components"]:
    """Real spherical harmonics of the directions, component-normalised (mean square one).

    e3nn takes its polar axis from the second coordinate; the vectors are therefore handed over as
    (y, z, x), which gives components m = -l … l about z: for l = 1 the order y, z, x.

    Args:
        vectors: edge vectors in Å, none of zero length.
        max_degree: highest degree.

    Returns:
        Degrees 0 … max_degree one after the other, (max_degree + 1)² components.
    """
    import e3nn_jax as e3nn  # slow to import

    permuted = jnp.stack([vectors[:, 1], vectors[:, 2], vectors[:, 0]], axis=-1)
    irreps = e3nn.Irreps.spherical_harmonics(max_degree)
    harmonics = e3nn.spherical_harmonics(
        irreps, permuted, normalize=True, normalization="component"
    )
    return harmonics.array
