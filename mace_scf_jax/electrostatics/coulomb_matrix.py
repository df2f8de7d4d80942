"""Coulomb energy as a quadratic form ½ p·A p of the multipoles of one system."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import corrections, open_boundary, reciprocal
from mace_scf_jax.electrostatics.energy import self_constants, system_energy
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.electrostatics.system import System


def system_coulomb_gradient(
    system: System, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "atoms components"]:
    """Derivative A p of the Coulomb energy of multipoles p, by the sums of the energy.

    Args:
        system: prepared geometry.
        multipoles: atomic multipoles in e Å^l.

    Returns:
        In V/Å^l; 0 for padding atoms.
    """
    return jax.grad(system_energy, argnums=1)(system, multipoles)


def system_coulomb_matrix(
    system: System,
) -> Float[Array, "atoms components atoms components"]:
    """The symmetric matrix A of the Coulomb energy ½ p·A p.

    It is the sum over all pairs of atoms and wavevectors as one product of matrices: for small
    systems far cheaper than a gradient for each column.

    Args:
        system: prepared geometry whose `has_pair_sums` holds.

    Returns:
        Second derivatives of `system_energy` by the multipoles, in V/Å^l per e Å^l; 0 for padding
        atoms.
    """
    settings = system.settings
    density = {"width": settings.smearing_width, "max_l": settings.max_l}
    if system.periodic is None:
        matrix = open_boundary.interaction_matrix(
            system.positions,
            **density,
            receiver_width=settings.smearing_width,
            receiver_max_l=settings.max_l,
        )
    else:
        matrix = reciprocal.interaction_matrix(
            system.periodic.geometry,
            **density,
            receiver_widths=(settings.smearing_width,),
            receiver_max_l=settings.max_l,
        )[:, 0]
    num_atoms, num_components = matrix.shape[:2]
    size = num_atoms * num_components
    matrix = matrix.reshape(size, size)
    if system.periodic is not None:
        matrix += _of_corrections(system, num_components)
    if not settings.include_self_interaction:
        constants = np.tile(self_constants(settings), num_atoms)
        matrix -= jnp.diag(jnp.asarray(constants, matrix.dtype))
    mask = jnp.repeat(system.atom_mask, num_components, total_repeat_length=size)
    matrix = jnp.where(mask[:, None] & mask, matrix, 0.0)
    return matrix.reshape(num_atoms, num_components, num_atoms, num_components)


def _of_corrections(system: System, num_components: int) -> Float[Array, "size size"]:
    """Second derivatives of the corrections, which depend on a few moments only."""
    shape = (len(system.positions), num_components)

    def energy(flat: Array) -> Array:
        return corrections.energy(
            system.periodic.correction, moments(system.positions, flat.reshape(shape))
        )

    return jax.hessian(energy)(jnp.zeros(shape[0] * shape[1], system.positions.dtype))
