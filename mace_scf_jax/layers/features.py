"""Equivariant node features: one array per degree l.

A feature of degree l has the natural parity (-1)^l and is stored as ``[atoms, 2l + 1, channels]``:
components in the order m = -l … l of real spherical harmonics (l = 1: y, z, x), channels last so
that every linear map is a plain matrix product.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

Features = dict[int, Array]
"""Degree l -> Float[Array, "atoms 2l+1 channels_l"]."""

Multiplicities = Mapping[int, int]
"""Degree l -> number of channels."""


_IRREP = re.compile(r"\s*(?:(?P<channels>\d+)\s*x\s*)?(?P<degree>\d+)(?P<parity>[eo])\s*")


class IrrepsError(ValueError):
    """An irreps string describes features that the models do not have."""


def parse_multiplicities(irreps: str, *, option: str) -> Multiplicities:
    """Channels per degree of an irreps string such as ``16x0e + 16x1o``.

    Args:
        irreps: irreps in the notation of e3nn.
        option: name of the option, for messages.

    Raises:
        IrrepsError: not an irreps string, or a parity other than (-1)^l.
    """
    multiplicities: dict[int, int] = {}
    for term in irreps.split("+"):
        parts = _IRREP.fullmatch(term)
        if parts is None:
            raise IrrepsError(
                f"{option}: expected irreps such as '32x0e + 32x1o', found {irreps!r}"
            )
        degree, parity = int(parts["degree"]), parts["parity"]
        if parity != "eo"[degree % 2]:
            raise IrrepsError(
                f"{option}: {degree}{parity} has not the natural parity (-1)^l of degree {degree}; "
                f"expected 0e, 1o, 2e, 3o, found {irreps!r}"
            )
        channels = int(parts["channels"] or 1)
        multiplicities[degree] = multiplicities.get(degree, 0) + channels
    if not any(multiplicities.values()):
        raise IrrepsError(f"{option}: expected at least one channel, found {irreps!r}")
    return dict(sorted(multiplicities.items()))


def parse_uniform_irreps(irreps: str, *, option: str) -> tuple[int, int]:
    """Channels and highest degree of irreps with equal multiplicity in l = 0 … L.

    Args:
        irreps: irreps in the notation of e3nn.
        option: name of the option, for messages.

    Returns:
        The number of channels of every degree, and L.

    Raises:
        IrrepsError: degrees are left out or differ in multiplicity.
    """
    multiplicities = parse_multiplicities(irreps, option=option)
    max_degree = max(multiplicities)
    channels = multiplicities.get(0, 0)
    uniform = dict.fromkeys(range(max_degree + 1), channels)
    if channels == 0 or multiplicities != uniform:
        raise IrrepsError(
            f"{option}: expected the same number of channels in every degree 0 … {max_degree}, "
            f"such as '{channels or 32}x0e + {channels or 32}x1o', found {irreps!r}"
        )
    return channels, max_degree


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
