"""Coulomb energy of Gaussian multipoles, for one system and for a batch of graphs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.electrostatics import corrections, open_boundary, reciprocal
from mace_scf_jax.electrostatics.boundary import BoundaryError, BoundaryMode
from mace_scf_jax.electrostatics.gaussians import self_interaction
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.graph import Graph


def check_multipoles(multipoles: Array, settings: ElectrostaticsSettings) -> None:
    """Refuse multipoles whose number of components does not fit the settings.

    Raises:
        ValueError: the last axis is not (max_l + 1)².
    """
    if multipoles.shape[-1] != settings.num_multipoles:
        raise ValueError(
            f"multipoles have {multipoles.shape[-1]} components per atom, expected "
            f"{settings.num_multipoles} for max_l = {settings.max_l}"
        )


def safe_cell(cell: Float[Array, "3 3"], atom_mask: Bool[Array, "atoms"]) -> Float[Array, "3 3"]:
    """The cell, or a unit cell for a padding graph, whose own cell may be singular."""
    return jnp.where(jnp.any(atom_mask), cell, jnp.eye(3, dtype=cell.dtype))


def self_energy(
    multipoles: Float[Array, "atoms components"], settings: ElectrostaticsSettings
) -> Float[Array, ""]:
    """Energy of each Gaussian multipole with itself, summed over atoms, in eV."""
    constants = np.array(
        [
            self_interaction(degree, settings.smearing_width, settings.smearing_width)
            for degree in degrees(settings.max_l)
        ]
    )
    return 0.5 * jnp.sum(jnp.asarray(constants, dtype=multipoles.dtype) * multipoles * multipoles)


def _boundary_correction(
    positions: Float[Array, "atoms 3"],
    multipoles: Float[Array, "atoms components"],
    cell: Float[Array, "3 3"],
    pbc: Bool[Array, "3"],
    settings: ElectrostaticsSettings,
) -> Float[Array, ""]:
    """Correction of the periodic energy for the boundary condition, in eV."""
    density = moments(positions, multipoles)
    volume = reciprocal.cell_volume(cell)
    match settings.boundary:
        case BoundaryMode.PBC:
            return jnp.zeros((), dtype=positions.dtype)
        case BoundaryMode.SLAB:
            return corrections.slab_energy(density, volume)
        case BoundaryMode.MOLECULE_IN_BOX:
            return corrections.molecule_energy(density, volume, exponent=settings.molecule_exponent)
        case BoundaryMode.MIXED_PERIODIC:
            return corrections.mixed_energy(
                density, volume, pbc, exponent=settings.molecule_exponent
            )
        case mode:
            raise BoundaryError(
                f"boundary {mode.value!r} has no periodic energy; resolve 'auto' on the host first"
            )


def coulomb_energy(
    positions: Float[Array, "atoms 3"],
    multipoles: Float[Array, "atoms components"],
    atom_mask: Bool[Array, "atoms"],
    cell: Float[Array, "3 3"],
    pbc: Bool[Array, "3"],
    k_indices: Int[Array, "kvectors 3"],
    k_mask: Bool[Array, "kvectors"],
    *,
    settings: ElectrostaticsSettings,
) -> Float[Array, ""]:
    """Coulomb energy of the Gaussian multipoles of one system.

    Args:
        positions: atomic positions in Å.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        atom_mask: False for padding atoms, whose other values do not matter.
        cell: lattice vectors in Å (rows); not used with open boundary.
        pbc: periodicity along x, y, z; used by ``mixed_periodic`` only.
        k_indices: integer reciprocal indices of one half space up to `settings.kspace_cutoff`;
            not used with open boundary.
        k_mask: False for padding indices.
        settings: density and boundary condition.

    Returns:
        Energy in eV, exactly 0 without atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        BoundaryError: the boundary condition is ``auto``.
    """
    check_multipoles(multipoles, settings)
    multipoles = jnp.where(atom_mask[:, None], multipoles, 0.0)
    positions = jnp.where(atom_mask[:, None], positions, 0.0)
    density = {"width": settings.smearing_width, "max_l": settings.max_l}
    if settings.boundary is BoundaryMode.REALSPACE:
        energy = open_boundary.energy(positions, multipoles, **density)
    else:
        cell = safe_cell(cell, atom_mask)
        geometry = reciprocal.prepare(positions, cell, k_indices, k_mask)
        structure = reciprocal.structure_factor(geometry, multipoles, **density)
        energy = reciprocal.energy(geometry, structure)
        energy += _boundary_correction(positions, multipoles, cell, pbc, settings)
    if not settings.include_self_interaction:
        energy -= self_energy(multipoles, settings)
    return energy


def batch_coulomb_energy(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
) -> Float[Array, "graphs"]:
    """Coulomb energy of each graph of a batch; atoms are paired within their graph only.

    Args:
        graph: the batch.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density and boundary condition.

    Returns:
        Energies in eV; exactly 0 for padding graphs.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        BoundaryError: the boundary condition is ``auto``.
    """
    return jax.vmap(functools.partial(coulomb_energy, settings=settings))(
        graph.to_slots(graph.positions),
        graph.to_slots(multipoles),
        graph.slot_mask,
        graph.cell,
        graph.pbc,
        graph.k_indices,
        graph.k_mask,
    )
