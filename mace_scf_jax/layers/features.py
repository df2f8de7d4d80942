"""Equivariant node features: one array per degree l.

A feature of degree l has the natural parity (-1)^l and is stored as ``[atoms, 2l + 1, channels]``:
components in the order m = -l … l of real spherical harmonics (l = 1: y, z, x), channels last so
that every linear map is a plain matrix product.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Float

Features = dict[int, Array]
"""Degree l -> Float[Array, "atoms 2l+1 channels_l"]."""


def from_e3nn(flat: Float[Array, "atoms width"], irreps: str) -> Features:
    """Features from the flat layout of e3nn (per irrep: channels, then components)."""
    import e3nn_jax as e3nn  # slow to import

    features: Features = {}
    start = 0
    for mul, ir in e3nn.Irreps(irreps):
        block = flat[:, start : start + mul * ir.dim].reshape(flat.shape[0], mul, ir.dim)
        start += mul * ir.dim
        block = jnp.swapaxes(block, 1, 2)
        features[ir.l] = (
            jnp.concatenate([features[ir.l], block], axis=-1) if ir.l in features else block
        )
    return features


def to_e3nn(features: Features) -> Float[Array, "atoms width"]:
    """Features in the flat layout of e3nn, degrees ascending."""
    blocks = [
        jnp.swapaxes(features[degree], 1, 2).reshape(features[degree].shape[0], -1)
        for degree in sorted(features)
    ]
    return jnp.concatenate(blocks, axis=-1)


def concatenate_components(features: Features) -> Float[Array, "atoms components channels"]:
    """All components of features with equal channels in one array, degrees ascending."""
    return jnp.concatenate([features[degree] for degree in sorted(features)], axis=1)


def add_up(arrays: Iterable[Array]) -> Array:
    """Return the sum of arrays of one shape, of which there is at least one."""
    return functools.reduce(operator.add, arrays)
