"""Potential of a density, projected on Gaussian receivers: what features and potentials share.

For every boundary condition this is the sum over the density plus the correction of its images.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import corrections, open_boundary
from mace_scf_jax.electrostatics.harmonics import num_components, solid_harmonics
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.electrostatics.system import System


def linear_potential_projections(
    potential: Float[Array, "points"],
    field: Float[Array, "points 3"],
    *,
    num_widths: int,
    max_l: int,
) -> Float[Array, "points widths receiver_components"]:
    """Projections of V + E·(r - r_i) on unit-moment Gaussians at r_i: V for l = 0, E for l = 1.

    Args:
        potential: V at the points in V.
        field: E, the gradient of the potential, in V/Å (x, y, z).
        num_widths: number of receivers at each point; their width does not matter.
        max_l: highest degree of the receivers.

    Returns:
        Projections in V/Å^l; a linear potential has none of degree 2 or more.
    """
    # R_00 = 1 becomes V, and R_1m(E) are the components of E.
    linear = solid_harmonics(field, min(max_l, 1)).at[:, 0].set(potential)
    padded = jnp.pad(linear, ((0, 0), (0, num_components(max_l) - linear.shape[-1])))
    return jnp.broadcast_to(padded[:, None, :], (padded.shape[0], num_widths, padded.shape[1]))


def correction_projections(
    system: System,
    multipoles: Float[Array, "atoms components"],
    points: Float[Array, "points 3"],
    *,
    num_widths: int,
    max_l: int,
) -> Float[Array, "points widths receiver_components"]:
    """Projections of the potential that corrects for periodic images; zero with open boundary.

    Args:
        system: prepared geometry.
        multipoles: atomic multipoles in e Å^l, zero for padding atoms.
        points: centres of the receivers in Å.
        num_widths: number of receivers at each point.
        max_l: highest degree of the receivers.

    Returns:
        Projections in V/Å^l.
    """
    sizes = {"num_widths": num_widths, "max_l": max_l}
    if system.periodic is None:
        zero = jnp.zeros_like(points)
        return linear_potential_projections(zero[:, 0], zero, **sizes)
    potential, field = corrections.potential_and_field(
        system.periodic.correction, moments(system.positions, multipoles), points
    )
    return linear_potential_projections(potential, field, **sizes)


def system_projections(
    system: System,
    multipoles: Float[Array, "atoms components"],
    *,
    widths: tuple[float, ...],
    max_l: int,
    points: Float[Array, "points 3"] | None = None,
) -> Float[Array, "points widths receiver_components"]:
    """Potential of a density projected on unit-moment Gaussians, own atoms included.

    Args:
        system: prepared geometry.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        widths: σ of the receivers in Å; 0 gives the potential and its derivatives.
        max_l: highest degree of the receivers.
        points: centres of the receivers in Å; the atoms if not given.

    Returns:
        ∫ V φ_lm in V/Å^l, corrected as the boundary condition asks.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
    """
    settings = system.settings
    multipoles = system.masked(multipoles)
    density = {"width": settings.smearing_width, "max_l": settings.max_l}
    centres = system.positions if points is None else points
    if system.periodic is None:
        return jnp.stack(
            [
                open_boundary.project_potential(
                    centres,
                    system.positions,
                    multipoles,
                    **density,
                    receiver_width=width,
                    receiver_max_l=max_l,
                )
                for width in widths
            ],
            axis=1,
        )
    geometry, sums = system.periodic.geometry, system.periodic.sums
    structure = sums.structure_factor(geometry, multipoles, **density)
    receivers = geometry if points is None else sums.at_points(geometry, points)
    summed = sums.project_potential(receivers, structure, widths=widths, max_l=max_l)
    return summed + correction_projections(
        system, multipoles, centres, num_widths=len(widths), max_l=max_l
    )
