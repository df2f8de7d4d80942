"""Scalars of every atom from inputs of its structure, such as charge and spin."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.mace.embedded_inputs import EmbeddedInput
from mace_scf_jax.layers.drawn import unit_normal

_FAN_IN = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


class InputEmbedding(nn.Module):
    """SiLU of a linear map of the embeddings of all inputs, side by side.

    Attributes:
        inputs: that are embedded, in this order.
        channels: scalars of every atom.
    """

    inputs: tuple[EmbeddedInput, ...]
    channels: int

    @nn.compact
    def __call__(
        self, values: Mapping[str, Float[Array, "atoms numbers"]]
    ) -> Float[Array, "atoms channels"]:
        """Embed the values that every atom has, by name."""
        parts = [self._embed(entry, values[entry.name]) for entry in self.inputs]
        embedded = jnp.concatenate(parts, axis=-1)
        weight = self.param("project", _FAN_IN, (embedded.shape[-1], self.channels))
        return jax.nn.silu(embedded @ weight)

    def _embed(self, entry: EmbeddedInput, values: Array) -> Array:
        if entry.is_categorical:
            table = self.param(entry.name, unit_normal, (entry.num_classes, entry.emb_dim))
            return jnp.asarray(table)[(values[:, 0] + entry.offset).astype(jnp.int32)]
        hidden = jax.nn.silu(self._affine(entry, 0, values))
        return self._affine(entry, 1, hidden)

    def _affine(self, entry: EmbeddedInput, layer: int, x: Array) -> Array:
        shape = (x.shape[-1], entry.emb_dim)
        x = x @ self.param(f"{entry.name}_layer_{layer}", _FAN_IN, shape)
        if not entry.use_bias:
            return x
        bias = self.param(f"{entry.name}_bias_{layer}", nn.initializers.zeros, (entry.emb_dim,))
        return x + bias
