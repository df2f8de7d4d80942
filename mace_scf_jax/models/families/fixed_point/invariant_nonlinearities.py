"""Nonlinearities that act on the invariants of a density update."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones.mace.radial import RadialNetwork

INVARIANT_WIDTHS = (64, 64)
"""Hidden widths of the networks."""
LAYER_NORM_EPSILON = 1e-5
"""Added to the variance of hidden layers that are normalised."""

Invariants = Float[Array, "atoms channels"]

LINEAR_NONLINEARITIES = ("NoNonLinearity", "ShallowNonLinearity")
"""Those that are linear."""
NONLINEARITIES = (*LINEAR_NONLINEARITIES, "MLPNonLinearity", "SkipMLPLinearity")
"""Names of nonlinearities of the invariant descriptors."""


class NormalisedNetwork(nn.Module):
    """Multilayer perceptron with biases whose hidden layers are normalised before SiLU.

    Every hidden layer gets mean 0 and variance 1 over its width, then a scale and a shift.

    Attributes:
        widths: width of every layer after the input; the last layer is linear.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Invariants) -> Float[Array, "atoms outputs"]:
        """Apply the network to each row."""
        uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
        for index, width in enumerate(self.widths):
            weight = self.param(f"layer_{index}", uniform, (x.shape[-1], width))
            x = x @ weight + self.param(f"bias_{index}", nn.initializers.zeros, (width,))
            if index + 1 == len(self.widths):
                break
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            variance = jnp.mean(centred**2, axis=-1, keepdims=True)
            scale = self.param(f"scale_{index}", nn.initializers.ones, (width,))
            shift = self.param(f"shift_{index}", nn.initializers.zeros, (width,))
            x = jax.nn.silu(centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * scale + shift)
        return x


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
