"""Electrostatic potential of Gaussian multipoles, at atoms and at any other points."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.projections import system_projections
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
    return system_projections(system, multipoles, widths=(0.0,), max_l=0, points=points)[:, 0, 0]


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
        multipoles: as for `system_potential`, of all atoms.
        settings: density and boundary condition.
        prepared: what `prepare_batch` gave for this graph and settings, to be reused.

    Returns:
        Potentials in V; 0 for padding atoms.
    """
    if prepared is None:
        prepared = prepare_batch(graph, settings=settings)
    return graph.from_slots(jax.vmap(system_potential)(prepared, graph.to_slots(multipoles)))
