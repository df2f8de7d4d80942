"""One multilayer perceptron per element, all evaluated at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.drawn import uniform

HiddenLayer = tuple[int, str]
"""Nodes and activation."""
Architecture = tuple[HiddenLayer, ...]
"""Hidden layers of a network; its output is linear."""


def _mtanh(x: Array) -> Array:
    """Return 1.7159 tanh(2x/3), whose slope and curvature near ±1 suit targets of ±1.

    Source:
        LeCun et al., Efficient BackProp (1998).
    """
    return 1.7159 * jnp.tanh(x * (2.0 / 3.0))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "mtanh": _mtanh,
    "twist": lambda x: _mtanh(x) + 0.1 * x,
}
"""By name, without any scaling. Their order is the one in which ænet numbers them."""


def uniform_by_fan_in(fan_in: int) -> Callable[..., Array]:
    """Return what draws weights or biases, uniform within ±1/√fan_in, as PyTorch does."""
    return uniform(1.0 / math.sqrt(fan_in))


def check_architecture(name: str, architecture: Architecture) -> None:
    """Refuse a network without hidden layers, an empty layer or an unknown activation.

    Args:
        name: what messages call it.

    Raises:
        ValueError: says what was found and expected.
    """
    if not architecture:
        raise ValueError(f"{name}: expected at least one hidden layer [nodes, activation]")
    for nodes, activation in architecture:
        if nodes < 1:
            raise ValueError(f"{name}: expected layers of at least one node, found {nodes}")
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"{name}: expected an activation of {known}, found {activation!r}")


class ElementNetworks(nn.Module):
    """Networks that map the same features of every atom by the weights of its element.

    Parameters are those of each element, ``<symbol>/weight_0`` [inputs, nodes], ``bias_0``, …
    Elements of the same architecture are evaluated together: every layer is one matrix product with
    the weights of all these elements, of which each atom takes its own.

    Attributes:
        elements: atomic numbers that species index.
        architectures: hidden layers of each element.
        outputs: number of outputs.
    """

    elements: tuple[int, ...]
    architectures: tuple[Architecture, ...]
    outputs: int = 1

    @nn.compact
    def __call__(
        self, features: Float[Array, "atoms inputs"], species: Int[Array, "atoms"]
    ) -> Float[Array, "atoms outputs"]:
        """Outputs of every atom."""
        result = jnp.zeros((features.shape[0], self.outputs), features.dtype)
        for architecture in dict.fromkeys(self.architectures):
            members = [
                index for index, other in enumerate(self.architectures) if other == architecture
            ]
            layers = [self._layers(index, architecture, features.shape[1]) for index in members]
            place = np.zeros(len(self.elements), dtype=np.int32)
            place[members] = np.arange(len(members))
            values = _evaluate(architecture, layers, features, jnp.asarray(place)[species])
            is_member = np.isin(np.arange(len(self.elements)), members)
            result = jnp.where(jnp.asarray(is_member)[species][:, None], values, result)
        return result

    def _layers(
        self, index: int, architecture: Architecture, inputs: int
    ) -> list[tuple[Array, Array]]:
        """Weights and biases of the layers of one element."""
        weights = _ElementWeights(
            (inputs, *(nodes for nodes, _ in architecture), self.outputs),
            name=chemical_symbols[self.elements[index]],
        )
        return weights()


class _ElementWeights(nn.Module):
    """The parameters of a network.

    Attributes:
        sizes: number of inputs, of nodes of each hidden layer, and of outputs.
    """

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self) -> list[tuple[Array, Array]]:
        layers = []
        for layer, (inputs, nodes) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            draw = uniform_by_fan_in(inputs)
            weight = self.param(f"weight_{layer}", draw, (inputs, nodes))
            layers.append((weight, self.param(f"bias_{layer}", draw, (nodes,))))
        return layers


def _evaluate(
    architecture: Architecture,
    layers: list[list[tuple[Array, Array]]],
    features: Array,
    place: Array,
) -> Array:
    """Values of networks of one architecture, each atom by the network of its place."""
    activations = [ACTIVATIONS[name] for _, name in architecture]
    # a sum, not an index, whose derivative would be a slow scatter
    is_own = (jnp.arange(len(layers), dtype=place.dtype)[:, None] == place)[:, None, :]
    values = features.T  # atoms along rows, so that layers of few nodes fill vector registers
    for layer, activation in enumerate([*activations, ACTIVATIONS["linear"]]):
        weights = jnp.concatenate([network[layer][0] for network in layers], axis=1)
        biases = jnp.stack([network[layer][1] for network in layers])[:, :, None]
        of_all = (weights.T @ values).reshape(*biases.shape[:2], -1) + biases
        values = activation(jnp.sum(jnp.where(is_own, of_all, 0.0), axis=0))
    return values.T
