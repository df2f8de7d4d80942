"""Electrostatic potential of Gaussian multipoles, at atoms and at any other points."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import corrections, open_boundary, reciprocal
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.system import System, prepare_batch
from mace_scf_jax.graph import Graph


def system_potential(
    system: System,
    multipoles: Float[Array, "atoms components"],
    points: Float[Array, "points 3"] | None = None,
) -> Float[Array, "points"]:
    """Potential of a density, the Gaussians at the point itself included.

    Args:
        system: prepared geometry.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        points: positions in Å; the atoms if not given.

    Returns:
        Potential in V, zero on average over a fully periodic cell.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    settings = system.settings
    multipoles = system.masked(multipoles)
    density = {"width": settings.smearing_width, "max_l": settings.max_l}
    at_atoms = points is None
    points = system.positions if at_atoms else points
    if system.periodic is None:
        projection = open_boundary.project_potential(
            points, system.positions, multipoles, **density, receiver_width=0.0, receiver_max_l=0
        )
        return projection[:, 0]
    geometry = system.periodic.geometry
    structure = reciprocal.structure_factor(geometry, multipoles, **density)
    receivers = geometry if at_atoms else reciprocal.at_points(geometry, points)
    projection = reciprocal.project_potential(receivers, structure, widths=(0.0,), max_l=0)
    correction, _ = corrections.potential_and_field(
        system.periodic.correction, moments(system.positions, multipoles), points
    )
    return projection[:, 0, 0] + correction


def batch_atomic_potentials(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "atoms"]:
    """Electrostatic potential of each graph's own density at its atoms.

    Args:
        graph: the batch.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density and boundary condition.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        Potentials in V; 0 for padding atoms.
    """
    prepared = prepare_batch(graph, settings=settings) if prepared is None else prepared
    return graph.from_slots(jax.vmap(system_potential)(prepared, graph.to_slots(multipoles)))
