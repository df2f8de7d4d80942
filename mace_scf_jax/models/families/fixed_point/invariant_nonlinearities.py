"""Nonlinearities that act on the invariants of a density update."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.mace.radial import RadialNetwork
from mace_scf_jax.layers.drawn import unit_normal
from mace_scf_jax.layers.features import Features, add_up
from mace_scf_jax.layers.normalised_network import NormalisedNetwork


class ChannelDots(nn.Module):
    """Scalar products of every channel with mixtures of the channels of other features.

    With weights w for each degree, s_u = Σ_l Σ_v w^l_uv h_lu · m_lv.
    """

    @nn.compact
    def __call__(self, left: Features, right: Features) -> Float[Array, "atoms channels"]:
        """One invariant for each channel of the features ``left``, h.

        Args:
            left: h, with the same channels in every degree.
            right: m, of the same degrees and channels as h.
        """
        dots = []
        for degree in left:
            channels = left[degree].shape[-1]
            weight = self.param(f"degree_{degree}", unit_normal, (channels, channels))
            mixed = right[degree] @ weight.T
            scale = math.sqrt(len(left) * channels * (2 * degree + 1))
            dots.append(jnp.sum(left[degree] * mixed, axis=1) / scale)
        return add_up(dots)


class ChannelScaling(nn.Module):
    """Every channel of features times a mixture of scalars, h_lu Σ_v w^l_uv s_v."""

    @nn.compact
    def __call__(self, features: Features, scalars: Float[Array, "atoms channels"]) -> Features:
        """Scale features h by scalars s, one for each channel."""
        count = scalars.shape[-1]
        scaled: Features = {}
        for degree, value in features.items():
            weight = self.param(f"degree_{degree}", unit_normal, (value.shape[-1], count))
            scaled[degree] = value * (scalars @ (weight.T / math.sqrt(count)))[:, None, :]
        return scaled


class ChannelProducts(nn.Module):
    """Scalars and vectors from pairs of scalars and vectors, in the manner of `ChannelDots`.

    With one matrix w of weights for each pair of degrees,

        scalars: h_0u Σ_v w^00_uv m_0v + h_1u · Σ_v w^11_uv m_1v,
        vectors: h_0u Σ_v w^01_uv m_1v + h_1u Σ_v w^10_uv m_0v.
    """

    @nn.compact
    def __call__(self, left: Features, right: Features) -> Features:
        """Products, with the channels of the features ``left``; higher degrees take no part.

        Args:
            left: h, with the same channels in every degree, of degrees 0 and 1 at least.
            right: m, of the same degrees and channels as h.
        """
        channels = left[0].shape[-1]

        def product(first: int, second: int) -> Array:
            weight = self.param(f"degrees_{first}{second}", unit_normal, (channels, channels))
            return left[first] * (right[second] @ weight.T)

        dots = jnp.sum(product(1, 1), axis=1, keepdims=True) / math.sqrt(3.0)
        scale = math.sqrt(2.0 * channels)
        return {
            0: (product(0, 0) + dots) / scale,
            1: (product(0, 1) + product(1, 0)) / scale,
        }


INVARIANT_WIDTHS = (64, 64)
"""Hidden widths of the networks."""

Invariants = Float[Array, "atoms channels"]


def nonlinear(kind: str, invariants: Invariants) -> Invariants:
    """Apply a nonlinearity; for use in a layer, which gets its weights as ``nonlinearity``.

    Args:
        kind: ``NoNonLinearity``; ``ShallowNonLinearity``, which in spite of its name is a linear
            map, as in the PyTorch package; ``MLPNonLinearity``, a network; ``SkipMLPLinearity``,
            the invariants plus a network of them with normalised layers.
        invariants: of every atom.
    """
    channels = invariants.shape[-1]
    match kind:
        case "ShallowNonLinearity":
            return RadialNetwork((channels,), name="nonlinearity")(invariants)
        case "MLPNonLinearity":
            return RadialNetwork((*INVARIANT_WIDTHS, channels), name="nonlinearity")(invariants)
        case "SkipMLPLinearity":
            network = NormalisedNetwork((*INVARIANT_WIDTHS, channels), name="nonlinearity")
            return invariants + network(invariants)
    return invariants
