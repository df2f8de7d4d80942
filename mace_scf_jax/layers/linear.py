"""Linear and bilinear equivariant maps with the normalisation of e3nn.

Weights are drawn from N(0, 1); each map divides by the root of its number of incoming terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.couplings import coupling
from mace_scf_jax.layers.drawn import unit_normal, zeros
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.notation import Multiplicities


class EquivariantLinear(nn.Module):
    """Linear map that mixes the channels of each degree; degrees absent from the input give zero.

    Attributes:
        multiplicities: channels per degree of the output.
        bias: add a bias to the scalars.
    """

    multiplicities: Multiplicities
    bias: bool = False

    @nn.compact
    def __call__(self, features: Features) -> Features:
        """Map features [atoms, 2l+1, channels] degree by degree."""
        some = next(iter(features.values()))
        mapped: Features = {}
        for degree, channels in self.multiplicities.items():
            if degree not in features:
                mapped[degree] = jnp.zeros((some.shape[0], 2 * degree + 1, channels), some.dtype)
                continue
            fan_in = features[degree].shape[-1]
            weight = self.param(f"degree_{degree}", unit_normal, (fan_in, channels))
            mapped[degree] = features[degree] @ (weight / math.sqrt(fan_in))
        if self.bias and 0 in mapped:
            bias = self.param("bias", zeros, (self.multiplicities[0],))
            mapped[0] = mapped[0] + bias
        return mapped


class ElementLinear(nn.Module):
    """Linear map with its own weights for every element (the product of features and one-hot).

    Attributes:
        multiplicities: channels per degree of the output.
        num_elements: number of elements.
    """

    multiplicities: Multiplicities
    num_elements: int

    @nn.compact
    def __call__(self, features: Features, species: Int[Array, "atoms"]) -> Features:
        """Map features [atoms, 2l+1, channels] with the weights of each atom's element."""
        some = next(iter(features.values()))
        mapped: Features = {}
        for degree, channels in self.multiplicities.items():
            if degree not in features:
                mapped[degree] = jnp.zeros((some.shape[0], 2 * degree + 1, channels), some.dtype)
                continue
            fan_in = features[degree].shape[-1]
            weight = self.param(
                f"degree_{degree}", unit_normal, (fan_in, self.num_elements, channels)
            )
            of_every_element = jnp.einsum("amc,czd->amzd", features[degree], weight)
            of_own_element = jnp.take_along_axis(
                of_every_element, species[:, None, None, None], axis=2
            )[:, :, 0]
            mapped[degree] = of_own_element / math.sqrt(fan_in * self.num_elements)
        return mapped


class FullyConnectedTensorProduct(nn.Module):
    """Bilinear map of two features through every coupling path and pair of channels.

    Attributes:
        multiplicities: channels per degree of the output.
    """

    multiplicities: Multiplicities

    @nn.compact
    def __call__(self, left: Features, right: Features) -> Features:
        """Product of features [atoms, 2l+1, channels] of the same atoms."""
        product: Features = {}
        for degree, channels in self.multiplicities.items():
            paths = [
                (l1, l2)
                for l1 in left
                for l2 in right
                if abs(l1 - l2) <= degree <= l1 + l2 and (l1 + l2 + degree) % 2 == 0
            ]
            some = next(iter(left.values()))
            total = jnp.zeros((some.shape[0], 2 * degree + 1, channels), some.dtype)
            terms = sum(left[l1].shape[-1] * right[l2].shape[-1] for l1, l2 in paths)
            for l1, l2 in paths:
                weight = self.param(
                    f"degrees_{l1}_{l2}_{degree}",
                    unit_normal,
                    (left[l1].shape[-1], right[l2].shape[-1], channels),
                )
                coefficients = jnp.asarray(coupling(l1, l2, degree), some.dtype)
                pairs = jnp.einsum("amu,anv,mno->aouv", left[l1], right[l2], coefficients)
                total = total + jnp.einsum("aouv,uvw->aow", pairs, weight)
            product[degree] = total / math.sqrt(max(terms, 1))
        return product


class ElementEmbedding(nn.Module):
    """Initial scalar features of each element.

    Attributes:
        channels: number of scalar channels.
        num_elements: number of elements.
        initial: how the weights of a new model are drawn.
    """

    channels: int
    num_elements: int
    initial: Callable[..., Array] = unit_normal

    @nn.compact
    def __call__(self, species: Int[Array, "atoms"]) -> Float[Array, "atoms 1 channels"]:
        """Scalars of every atom, by its element."""
        weight = self.param("weight", self.initial, (self.num_elements, self.channels))
        return weight[species][:, None, :] / math.sqrt(self.num_elements)
