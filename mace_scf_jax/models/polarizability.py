"""Cartesian polarizability tensors from features of degree 0 and 2."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.layers.couplings import coupling
from mace_scf_jax.layers.features import Features

CARTESIAN = np.array([2, 0, 1])
"""Where x, y, z stand in features of degree 1."""


def cartesian_tensor(features: Features) -> Float[Array, "atoms 3 3"]:
    """Symmetric tensors (x, y, z) from one channel each of degree 0 and 2.

    Args:
        features: degree 0 [atoms, 1, 1] and degree 2 [atoms, 5, 1], in an orthonormal basis of
            symmetric tensors: the norm of the features is the Frobenius norm of the tensor.
    """
    total = jnp.zeros((), features[0].dtype)
    for degree in (0, 2):
        basis = coupling(1, 1, degree)[CARTESIAN][:, CARTESIAN]
        basis = jnp.asarray(basis, features[degree].dtype)
        total = total + jnp.einsum("am,ijm->aij", features[degree][..., 0], basis)
    return total
