"""A convex function of the multipoles of an atom, whose coefficients are learned.

With the multipoles in units of e, p = (Q, d/σ, …) for Gaussians of width σ,

    f(p) = b·p + ½ Σ_l k_l |p_l|² + ½ Σ_c (v_c·p)² + ¼ u |p|⁴,      k_l > 0, u > 0.

The stiffnesses k and u come from scalar readouts through a softplus, so f is strictly convex
whatever the weights; b and v come from equivariant readouts, so it turns with the atoms.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.layers.features import add_up, concatenate_components
from mace_scf_jax.layers.readout import LinearReadout
from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.models.variational import read_scalars, unit_softplus


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AtomicFunctional:
    """The coefficients for every atom; zero for padding atoms."""

    slope: Float[Array, "atoms components"]
    """b in eV/e."""
    stiffness: Float[Array, "atoms components"]
    """k in eV/e², the same for all components of a degree."""
    directions: Float[Array, "atoms components channels"]
    """v in √eV/e."""
    quartic: Float[Array, "atoms"]
    """u in eV/e⁴."""

    def energy(self, reduced: Float[Array, "atoms components"]) -> Float[Array, "atoms"]:
        """f in eV.

        Args:
            reduced: multipoles in e, divided by σ^l.
        """
        squares = reduced**2
        along = jnp.einsum("ap,apc->ac", reduced, self.directions)
        quadratic = jnp.sum(self.stiffness * squares, axis=-1) + jnp.sum(along**2, axis=-1)
        quartic = self.quartic * jnp.sum(squares, axis=-1) ** 2
        return jnp.sum(self.slope * reduced, axis=-1) + 0.5 * quadratic + 0.25 * quartic


class AtomicFunctionalReadout(nn.Module):
    """Coefficients of the functional from the features of every layer.

    Attributes:
        settings: of the model; `electrostatics` is needed.
    """

    settings: ModelSettings[EnergyFunctionalSettings]

    @nn.compact
    def __call__(self, backbone: BackboneOutput) -> AtomicFunctional:
        """Read out the coefficients of every atom."""
        functional = self.settings.own
        max_l = self.settings.density.max_l
        # slope of the charge, u, k_0 … k_L
        scalars = read_scalars(self.settings, backbone, "scalars", 3 + max_l)
        channels = 1 + functional.num_directions
        vectors = add_up(
            concatenate_components(
                LinearReadout(dict.fromkeys(range(max_l + 1), channels), name=f"vectors_{layer}")(
                    features
                )
            )
            for layer, features in enumerate(backbone.layers)
        )
        slope = vectors[..., 0].at[:, 0].add(scalars[:, 0])
        return AtomicFunctional(
            slope=slope,
            stiffness=functional.default_hardness
            * unit_softplus(scalars[:, 2:])[:, np.array(degrees(max_l))],
            directions=vectors[..., 1:],
            quartic=unit_softplus(scalars[:, 1]),
        )
