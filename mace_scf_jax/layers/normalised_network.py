"""A multilayer perceptron whose hidden layers are normalised."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.drawn import ones, uniform, zeros

EPSILON = 1e-5
"""Added to the variance of hidden layers."""


class NormalisedNetwork(nn.Module):
    """Multilayer perceptron with biases whose hidden layers are normalised before SiLU.

    Every hidden layer gets mean 0 and variance 1 over its width, then a scale and a shift.

    Attributes:
        widths: width of every layer after the input; the last layer is linear.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows inputs"],
        *tables: tuple[Float[Array, "entries width"], Int[Array, "rows"]],
    ) -> Float[Array, "rows outputs"]:
        """Apply the network to each row.

        Args:
            x: inputs of every row.
            tables: further inputs, behind x, of which there are few different ones: all of them,
                and which one each row has. The first layer maps the few, not every row.
        """
        sizes = [x.shape[-1], *(entries.shape[-1] for entries, _ in tables)]
        for index, width in enumerate(self.widths):
            fan_in = sum(sizes) if index == 0 else x.shape[-1]
            weight = self.param(f"layer_{index}", uniform(1.0 / math.sqrt(fan_in)), (fan_in, width))
            if index == 0:
                of_rows, *of_tables = jnp.split(weight, np.cumsum(sizes)[:-1])
                x = x @ of_rows
                for (entries, which), of_table in zip(tables, of_tables, strict=True):
                    x = x + (entries @ of_table)[which]
            else:
                x = x @ weight
            x = x + self.param(f"bias_{index}", zeros, (width,))
            if index + 1 == len(self.widths):
                break
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            variance = jnp.mean(centred**2, axis=-1, keepdims=True)
            scale = self.param(f"scale_{index}", ones, (width,))
            shift = self.param(f"shift_{index}", zeros, (width,))
            x = jax.nn.silu(centred * jax.lax.rsqrt(variance + EPSILON) * scale + shift)
        return x
