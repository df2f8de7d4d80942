"""Many-body products of an atom's features: the symmetric contraction of MACE.

The reference contracts dense coefficients U over all triples of components. Here only chains of
couplings that are linearly independent are evaluated, and the weights of all paths are merged into
weights of those: the same polynomials with the same parameters at a tenth of the cost.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.couplings import (
    Chain,
    component_slice,
    coupling_chains,
    independent_chains,
)
from mace_scf_jax.layers.drawn import normal
from mace_scf_jax.layers.features import Features


class SymmetricContraction(nn.Module):
    """Polynomials of degree ≤ correlation in the features of one atom and channel.

    For each degree l of the output, with weights w that depend on the element z of the atom,

        B_lm = sum_ν sum_chains w[z, chain] (A ⊗ … ⊗ A)_lm along the chain   (ν factors).

    Attributes:
        max_degree_out: highest degree of the output.
        correlation: highest order ν.
        num_elements: number of elements.

    Source:
        Batatia et al., MACE, NeurIPS 2022, eq. 10–11.
    """

    max_degree_out: int
    correlation: int
    num_elements: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "atoms components channels"], species: Int[Array, "atoms"]
    ) -> Features:
        """Products of features with degrees 0 … L_in, all with the same channels."""
        channels = features.shape[-1]
        max_degree_in = round(features.shape[1] ** 0.5) - 1
        # components first: every coupling is then one product with a constant matrix
        factors = jnp.moveaxis(features, 1, 0)
        products = ChainProducts(factors)
        contracted: Features = {}
        for degree in range(self.max_degree_out + 1):
            total = jnp.zeros((2 * degree + 1, *factors.shape[1:]), factors.dtype)
            for order in range(1, self.correlation + 1):
                paths = len(coupling_chains(max_degree_in, degree, order))
                if paths == 0:
                    continue
                weight = self.param(
                    f"degree_{degree}_order_{order}",
                    normal(1.0 / paths),
                    (self.num_elements, paths, channels),
                )
                chains, expressed = independent_chains(max_degree_in, degree, order)
                merged = jnp.einsum("qp,zpc->qzc", jnp.asarray(expressed, weight.dtype), weight)
                total = total + products.weighted_sum(chains, merged[:, species])
            contracted[degree] = jnp.moveaxis(total, 0, 1)
        return contracted


class ChainProducts:
    """Values of coupling chains of equal factors, each computed once.

    Args:
        factors: components of degrees 0, 1, … of every atom, [components, atoms, channels].
    """

    def __init__(self, factors: Float[Array, "components atoms channels"]) -> None:
        self._factors = factors
        self._values: dict[Chain, Array] = {}

    def weighted_sum(
        self, chains: tuple[Chain, ...], weights: Float[Array, "chains atoms channels"]
    ) -> Float[Array, "components atoms channels"]:
        """Sum of the chains' values times their weights.

        The weights are applied before the last coupling, so that chains which end alike share it.

        Args:
            chains: chains of one order with one degree of the result.
            weights: weight of each chain.
        """
        if not chains[0].steps:
            return weights[0] * self._value(chains[0])
        endings: dict[tuple[int, int, int], list[int]] = {}
        for index, chain in enumerate(chains):
            key = (chain.prefix.degree, chain.prefix.parity, chain.steps[-1][0])
            endings.setdefault(key, []).append(index)
        self._compute({chain.prefix for chain in chains})
        lefts, columns = [], []
        for (_, _, factor), members in endings.items():
            lefts.append(
                sum(weights[index] * self._value(chains[index].prefix) for index in members)
            )
            coupling = chains[members[0]].last_coupling()  # [left, factor, result]
            column = np.zeros((coupling.shape[2], len(self._factors), coupling.shape[0]))
            column[:, component_slice(factor)] = np.transpose(coupling, (2, 1, 0))
            columns.append(column)
        matrix = jnp.asarray(np.concatenate(columns, axis=-1), self._factors.dtype)
        gradient = jnp.tensordot(matrix, jnp.concatenate(lefts), axes=1)
        return jnp.sum(gradient * self._factors, axis=1)

    def _value(self, chain: Chain) -> Array:
        """Value of a chain, [2l + 1, atoms, channels]."""
        if not chain.steps:
            return self._factors[component_slice(chain.first)]
        return self._values[chain]

    def _compute(self, chains: set[Chain]) -> None:
        """Compute the values of chains of one order that are not known yet, all in one product."""
        missing = sorted(
            (chain for chain in chains if chain.steps and chain not in self._values),
            key=lambda chain: (chain.degree, chain.first, chain.steps),
        )
        if not missing:
            return
        self._compute({chain.prefix for chain in missing})
        prefixes = list(dict.fromkeys(chain.prefix for chain in missing))
        left = jnp.concatenate([self._value(prefix) for prefix in prefixes])
        columns, rows = _component_slices(prefixes), _component_slices(missing)
        matrix = np.zeros((rows[missing[-1]].stop, len(left), len(self._factors)))
        for chain in missing:
            factor, _ = chain.steps[-1]
            matrix[rows[chain], columns[chain.prefix], component_slice(factor)] = np.transpose(
                chain.last_coupling(), (2, 0, 1)
            )
        used_left, used_right = np.nonzero(np.any(matrix != 0.0, axis=0))
        pairs = left[used_left] * self._factors[used_right]
        constants = jnp.asarray(matrix[:, used_left, used_right], pairs.dtype)
        values = jnp.tensordot(constants, pairs, axes=1)
        self._values.update({chain: values[rows[chain]] for chain in missing})


def _component_slices(chains: list[Chain]) -> dict[Chain, slice]:
    """Where the results of chains stand when put one after the other."""
    stops = np.cumsum([2 * chain.degree + 1 for chain in chains])
    return {
        chain: slice(int(stop) - 2 * chain.degree - 1, int(stop))
        for chain, stop in zip(chains, stops, strict=True)
    }
