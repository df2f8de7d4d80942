"""Coulomb energy of Gaussian multipoles, for one system and for a batch of graphs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import corrections, open_boundary
from mace_scf_jax.electrostatics.gaussians import self_interaction
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.system import System, prepare_batch
from mace_scf_jax.graph import Graph


def self_constants(settings: ElectrostaticsSettings) -> Float[np.ndarray, "components"]:
    """Energy of a unit Gaussian multipole with itself, twice: s_l of each component."""
    width = settings.smearing_width
    return np.array([self_interaction(degree, width, width) for degree in degrees(settings.max_l)])


def self_energy(
    multipoles: Float[Array, "atoms components"], settings: ElectrostaticsSettings
) -> Float[Array, ""]:
    """Energy of each Gaussian multipole with itself, summed over atoms.

    Args:
        multipoles: atomic multipoles in e Å^l; zero for padding atoms.
        settings: width and degree of the density.

    Returns:
        ½ Σ s_l p² in eV.
    """
    constants = jnp.asarray(self_constants(settings), dtype=multipoles.dtype)
    return 0.5 * jnp.sum(constants * multipoles * multipoles)


def system_energy(system: System, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
    """Coulomb energy of multipoles in a prepared geometry.

    Args:
        system: prepared geometry.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.

    Returns:
        Energy in eV, exactly 0 without atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    settings = system.settings
    multipoles = system.masked(multipoles)
    density = {"width": settings.smearing_width, "max_l": settings.max_l}
    if system.periodic is None:
        energy = open_boundary.energy(system.positions, multipoles, **density)
    else:
        geometry, sums = system.periodic.geometry, system.periodic.sums
        structure = sums.structure_factor(geometry, multipoles, **density)
        energy = sums.energy(geometry, structure) + corrections.energy(
            system.periodic.correction, moments(system.positions, multipoles)
        )
    if not settings.include_self_interaction:
        energy -= self_energy(multipoles, settings)
    return energy


def batch_coulomb_energy(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "graphs"]:
    """Coulomb energy of each graph of a batch; atoms are paired within their graph only.

    Args:
        graph: the batch.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density and boundary condition.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        Energies in eV; exactly 0 for padding graphs.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        BoundaryError: the boundary condition is ``auto``.
    """
    if prepared is None:
        prepared = prepare_batch(graph, settings=settings)
    return jax.vmap(system_energy)(prepared, graph.to_slots(multipoles))
