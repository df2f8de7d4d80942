"""The one linear operator of electrostatics: from multipoles to the potential that Gaussians feel.

A(receivers) p is the potential of the density, projected on receivers at the atoms or elsewhere:
the sum over the density, plus the correction for images that the system does not have, minus what
an atom's own Gaussian causes where that is not to count. It is everything there is:

- energy: ½ p·A p, the density being its own receiver;
- Coulomb matrix: that A as a matrix; its product with p is the derivative of the energy;
- potential: receivers of no width;
- field features (`features`): receivers of the widths and the degree of the features.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import Receivers, project_own
from mace_scf_jax.electrostatics.harmonics import num_components
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.system import System, prepare_batch
from mace_scf_jax.graph import Graph


def system_projections(
    system: System,
    multipoles: Float[Array, "atoms components"],
    receivers: Receivers,
    points: Float[Array, "points 3"] | None = None,
) -> Float[Array, "points widths receiver_components"]:
    """Potential of a density projected on unit-moment Gaussians.

    Args:
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        receivers: what the potential is projected on. An atom's own Gaussian can be left out at
            the atoms only.
        points: centres of the receivers in Å; the atoms if not given.

    Returns:
        ∫ V φ_lm in V/Å^l, corrected as the boundary condition asks.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    multipoles = system.masked(multipoles)
    summed = system.sums.project(multipoles, receivers, points)
    return summed + _beside_the_sum(system, multipoles, receivers, points)


def _beside_the_sum(
    system: System,
    multipoles: Float[Array, "atoms components"],
    receivers: Receivers,
    points: Float[Array, "points 3"] | None = None,
) -> Float[Array, "points widths receiver_components"]:
    """What corrections add to the projections, and own Gaussians that do not count take away."""
    centres = system.positions if points is None else points
    shape = (len(centres), len(receivers.widths), num_components(receivers.max_l))
    added = jnp.zeros(shape, multipoles.dtype)
    if system.correction is not None:
        added += system.correction.project(system.positions, multipoles, receivers, centres)
    if points is None and not receivers.include_self_interaction:
        settings = system.settings
        added -= project_own(
            multipoles, receivers, width=settings.smearing_width, max_l=settings.max_l
        )
    return added


def system_matrix(
    system: System, receivers: Receivers
) -> Float[Array, "atoms widths receiver_components atoms components"]:
    """The operator as a matrix, made as one product over all pairs of atoms and wavevectors.

    For small systems this is far cheaper than a projection for each column.

    Args:
        receivers: Gaussians at the atoms.

    Returns:
        Projections at every atom of the potential of each multipole of every atom, in V/Å^l per
        e Å^l; 0 for padding atoms.

    Raises:
        ValueError: `has_pair_sums` does not hold for the system.
    """
    if not system.has_pair_sums:
        raise ValueError(
            "found a geometry whose sums are made in chunks or on a mesh, expected one with all "
            "phases in memory for a matrix of pairs of atoms"
        )
    sums = system.sums.matrix(receivers)
    num_atoms, num_multipoles = sums.shape[-2:]
    units = jnp.eye(num_atoms * num_multipoles, dtype=sums.dtype)
    rest = jax.vmap(
        lambda unit: _beside_the_sum(system, unit.reshape(num_atoms, num_multipoles), receivers),
        out_axes=-1,
    )(units)
    mask = system.atom_mask
    mask = mask[:, None, None, None, None] & mask[:, None]
    return jnp.where(mask, sums + rest.reshape(sums.shape), 0.0)


def system_energy(system: System, multipoles: Float[Array, "atoms components"]) -> Float[Array, ""]:
    """Coulomb energy ½ p·A p of multipoles in a prepared geometry.

    Args:
        multipoles: atomic multipoles p in e Å^l, in the order of `harmonics`.

    Returns:
        Energy in eV, exactly 0 without atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    multipoles = system.masked(multipoles)
    rest = _beside_the_sum(system, multipoles, system.settings.own_receivers)[:, 0]
    return system.sums.energy(multipoles) + 0.5 * jnp.sum(multipoles * rest)


def system_coulomb_gradient(
    system: System, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "atoms components"]:
    """Derivative A p of the Coulomb energy by the multipoles, by the sums of the energy.

    Args:
        multipoles: atomic multipoles p in e Å^l.

    Returns:
        In V/Å^l; 0 for padding atoms.
    """
    return jax.grad(system_energy, argnums=1)(system, multipoles)


def system_coulomb_matrix(
    system: System,
) -> Float[Array, "atoms components atoms components"]:
    """The symmetric matrix A of the Coulomb energy ½ p·A p.

    Args:
        system: prepared geometry whose `has_pair_sums` holds.

    Returns:
        Second derivatives of `system_energy` by the multipoles, in V/Å^l per e Å^l; 0 for padding
        atoms.
    """
    return system_matrix(system, system.settings.own_receivers)[:, 0]


def system_potential(
    system: System,
    multipoles: Float[Array, "atoms components"],
    points: Float[Array, "points 3"] | None = None,
) -> Float[Array, "points"]:
    """Potential of a density, the Gaussians at the point itself included.

    Args:
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        points: positions in Å; the atoms if not given.

    Returns:
        Potential in V, zero on average over a fully periodic cell.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    receivers = Receivers(0, (0.0,), include_self_interaction=True)
    return system_projections(system, multipoles, receivers, points)[:, 0, 0]


def map_graphs(
    apply: Callable[[System, Array], Array],
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None,
) -> Array:
    """Apply a function of one system and its multipoles to every graph of a batch.

    Args:
        apply: the function.
        multipoles: of all its atoms.
        settings: density and boundary condition.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        What the function gives, with a leading axis of graphs, and slots instead of atoms.
    """
    if prepared is None:
        prepared = prepare_batch(graph, settings=settings)
    return jax.vmap(apply)(prepared, graph.to_slots(multipoles))


def batch_coulomb_energy(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "graphs"]:
    """Coulomb energy of each graph of a batch; atoms are paired within their graph only.

    Args:
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density and boundary condition.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        Energies in eV; exactly 0 for padding graphs.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        BoundaryError: the boundary condition is ``auto``.
    """
    return map_graphs(system_energy, graph, multipoles, settings=settings, prepared=prepared)


def batch_atomic_potentials(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "atoms"]:
    """Electrostatic potential of each graph's own density at its atoms.

    Args:
        multipoles: as for `system_potential`, of all atoms.
        settings: density and boundary condition.
        prepared: what `prepare_batch` gave for this graph and settings, to be reused.

    Returns:
        Potentials in V; 0 for padding atoms.
    """
    potentials = map_graphs(
        system_potential, graph, multipoles, settings=settings, prepared=prepared
    )
    return graph.from_slots(potentials)
