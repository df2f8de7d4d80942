"""Many-body products of an atom's features: the symmetric contraction of MACE."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbone.couplings import symmetric_power_coupling
from mace_scf_jax.backbone.features import Features


class SymmetricContraction(nn.Module):
    """Polynomials of degree ≤ correlation in the features of one atom and channel.

    For each degree l of the output, with weights w that depend on the element z of the atom,

        B_lm = sum_ν sum_paths w[z, path] U^ν_lm[path] · (A ⊗ … ⊗ A)   (ν factors).

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
        return {
            degree: self._contract(features, species, degree, max_degree_in, channels)
            for degree in range(self.max_degree_out + 1)
        }

    def _contract(self, features, species, degree, max_degree_in, channels):
        # Horner's scheme: ((U3 w3 · A + U2 w2) · A + U1 w1) · A
        result = None
        for order in range(self.correlation, 0, -1):
            coefficients = symmetric_power_coupling(max_degree_in, degree, order)
            paths = coefficients.shape[-1]
            if paths > 0:
                weight = self.param(
                    f"degree_{degree}_order_{order}",
                    nn.initializers.normal(1.0 / paths),
                    (self.num_elements, paths, channels),
                )
                mixed = jnp.tensordot(
                    weight[species], jnp.asarray(coefficients, features.dtype), axes=((1,), (-1,))
                )  # [atoms, channels, 2l+1, M, ..., M]
                result = mixed if result is None else result + mixed
            if result is not None:
                result = jnp.einsum("ac...i,aic->ac...", result, features)
        return jnp.swapaxes(result, 1, 2)
