"""Multipoles that minimise a learned energy at fixed total charge.

The energy is E_C(p) + E_local(p), the Coulomb energy of the multipoles and a convex function of
them that the model learns. With the Lagrange multiplier λ of the charge,

    ∂(E_C + E_local)/∂p = λ ∂Q/∂p,    Σ p₀ = Q,    λ = dE/dQ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import (
    System,
    system_coulomb_gradient,
    system_coulomb_matrix,
    system_energy,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.scf import Minimum, stationary_value

AnyMinimum = TypeVar("AnyMinimum", bound=Minimum)
LocalEnergy = Callable[..., Array]
"""E_local: a system, further inputs and multipoles [atoms, components] -> an energy in eV; a
function of its arguments alone."""


def minimise(
    system: System,
    local_energy: LocalEnergy,
    inputs: tuple[Any, ...],
    total_charge: Float[Array, ""],
    *,
    find: Callable[..., AnyMinimum],
    dense: bool,
) -> tuple[AnyMinimum, Float[Array, "atoms components"], Float[Array, ""]]:
    """Multipoles of one system that minimise E_C + E_local at fixed total charge.

    Args:
        local_energy: E_local.
        inputs: further inputs of E_local.
        total_charge: Q in e.
        find: `quadratic_minimum` or `convex_minimum`, with its options.
        dense: apply the Coulomb matrix, if the sums over pairs are at hand.

    Returns:
        The minimum, whose multiplier is dE/dQ, its multipoles and its energy in eV. Derivatives of
        the energy are taken at fixed multipoles, which is exact at the minimum; the multipoles have
        derivatives of their own.
    """
    shape = (system.atom_mask.shape[0], system.settings.num_multipoles)
    mask = jnp.broadcast_to(system.atom_mask[:, None], shape).reshape(-1)
    charges = jnp.zeros(shape, system.positions.dtype).at[:, 0].set(1.0).reshape(-1)

    def local(flat: Array) -> Array:
        return local_energy(system, *inputs, flat.reshape(shape))

    coulomb = _coulomb_operator(system, dense=dense)
    minimum = find(coulomb, local, charges, mask, total_charge)
    multipoles = minimum.unknowns.reshape(shape)

    def lagrangian(unknowns, parameters):
        (multipoles, multiplier), (system, inputs, total) = unknowns, parameters
        energy = system_energy(system, multipoles) + local_energy(system, *inputs, multipoles)
        return energy + multiplier * (total - jnp.sum(multipoles[:, 0]))

    energy = stationary_value(
        lagrangian, (multipoles, minimum.multiplier), (system, inputs, total_charge)
    )
    return minimum, multipoles, energy


def _coulomb_operator(system: System, *, dense: bool) -> Callable[[Array], Array]:
    """∂E_C/∂p as a linear function of flat multipoles, with a matrix if that can be had."""
    shape = (system.atom_mask.shape[0], system.settings.num_multipoles)
    size = shape[0] * shape[1]
    if dense and system.has_pair_sums:
        matrix = system_coulomb_matrix(system).reshape(size, size)
        return lambda flat: matrix @ flat
    return lambda flat: system_coulomb_gradient(system, flat.reshape(shape)).reshape(-1)


def read_scalars(
    settings: ModelSettings, backbone: BackboneOutput, label: str, count: int = 1
) -> Float[Array, "atoms count"]:
    """Coefficients of E_local: a sum of readouts of all layers, nonlinear in the last of several.

    Args:
        settings: of the model that calls this; its readouts are named after the layers.
        backbone: features of every layer.
        label: first part of the names.
        count: number of scalars.
    """
    scalars = settings.backbone.read_out(backbone, {0: count}, label=label, nonlinear_last=True)
    return scalars[0][:, 0]


def unit_softplus(values: Array) -> Array:
    """A positive function that is 1 at 0: log(1 + (e - 1) exp x)."""
    return jax.nn.softplus(values + math.log(math.e - 1.0))
