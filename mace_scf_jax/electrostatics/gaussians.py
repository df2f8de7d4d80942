"""Gaussian multipoles φ_lm(r) = C_l Y_lm(r̂) r^l exp(-r²/2σ²): norms, transforms, self terms.

Two normalisations occur. Densities have unit multipole moment, ∫ φ_lm R_lm = 1. Field features are
projections on receivers with C_l ∫ r^(l+2) exp(-r²/2σ²) dr = 1, as in the PyTorch reference.
Everything is computed with unit moments, for which the Fourier transform is
(-i)^l/(2l-1)!! · R_lm(k) exp(-k²σ²/2); `receiver_scale` converts at the end.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.harmonics import degrees, num_components, solid_harmonics
from mace_scf_jax.units import FIELD_CONSTANT


@dataclasses.dataclass(frozen=True)
class Receivers:
    """Gaussians at every atom, or at other points, that a potential is projected on."""

    max_l: int
    """Highest degree."""
    widths: tuple[float, ...]
    """Widths σ_n in Å; 0 gives the potential and its derivatives at the point."""
    include_self_interaction: bool = False
    """Whether an atom's own Gaussian contributes to its projections."""

    displacement: ClassVar[float] = 0.02
    """Distance in Å of the charges that stand for a dipole, where charges are displaced."""


def odd_double_factorial(degree: int) -> int:
    """(2l - 1)!! for the degree l; 1 for l = 0."""
    return math.prod(range(1, 2 * degree, 2))


def multipole_norm(degree: int, width: float) -> float:
    """C_l that gives φ_lm unit multipole moment.

    Args:
        degree: l.
        width: σ in Å.

    Returns:
        C_l in Å^-(2l+3).
    """
    return 1.0 / (
        math.sqrt(4.0 * math.pi / (2 * degree + 1))
        * 2.0 ** (0.5 * (2 * degree + 1))
        * math.gamma(0.5 * (2 * degree + 3))
        * width ** (2 * degree + 3)
    )


def receiver_norm(degree: int, width: float) -> float:
    """C_l of the Gaussians that field features are projected on.

    Args:
        degree: l.
        width: σ in Å.

    Returns:
        C_l in Å^-(l+3).
    """
    return 1.0 / (
        2.0 ** (0.5 * (degree + 1)) * math.gamma(0.5 * (degree + 3)) * width ** (degree + 3)
    )


def receiver_scale(degree: int, width: float) -> float:
    """Factor from a projection on a unit-moment Gaussian to the field feature, in Å^l."""
    return receiver_norm(degree, width) / multipole_norm(degree, width)


def form_factors(
    wavevectors: Float[Array, "kvectors 3"], width: float, max_l: int
) -> Float[Array, "kvectors components"]:
    """Modulus of the Fourier transform of unit-moment Gaussian multipoles.

    Args:
        wavevectors: k in 1/Å.
        width: σ in Å; 0 gives point multipoles.
        max_l: highest degree.

    Returns:
        R_lm(k) exp(-k²σ²/2) / (2l-1)!!; the transform itself has the further factor (-i)^l.
    """
    dtype = wavevectors.dtype
    inverse_factorials = np.array([1.0 / odd_double_factorial(degree) for degree in degrees(max_l)])
    damping = jnp.exp(-0.5 * width**2 * jnp.sum(wavevectors * wavevectors, axis=-1))
    harmonics = solid_harmonics(wavevectors, max_l)
    return harmonics * damping[:, None] * jnp.asarray(inverse_factorials, dtype=dtype)


def self_interaction(degree: int, width: float, receiver_width: float) -> float:
    """Interaction of a unit Gaussian multipole with a unit-moment Gaussian on the same site.

    Args:
        degree: l of both.
        width: σ of the source in Å.
        receiver_width: σ of the receiver in Å.

    Returns:
        s_l in eV/(e Å^l)²: the energy of a Gaussian multipole with itself is ½ s_l p².
    """
    return (
        FIELD_CONSTANT
        * multipole_norm(degree, width)
        * multipole_norm(degree, receiver_width)
        * (width * receiver_width) ** (2 * degree + 3)
        * 0.5
        * math.gamma(degree + 0.5)
        * (2.0 / (width**2 + receiver_width**2)) ** (degree + 0.5)
    )


def project_own(
    multipoles: Float[Array, "atoms components"], receivers: Receivers, *, width: float, max_l: int
) -> Float[Array, "atoms widths receiver_components"]:
    """Part of the projections at an atom that its own Gaussian causes.

    Args:
        multipoles: atomic multipoles in e Å^l.
        receivers: what the potential is projected on.
        width: σ of the density in Å.
        max_l: highest degree of the density.

    Returns:
        s_l p for the degrees that density and receivers share, in V/Å^l; 0 for others.
    """
    shared_l = min(max_l, receivers.max_l)
    constants = [
        [self_interaction(degree, width, receiver_width) for degree in degrees(shared_l)]
        for receiver_width in receivers.widths
    ]
    shared = multipoles[:, None, : num_components(shared_l)]
    shared = shared * jnp.asarray(constants, multipoles.dtype)
    missing = num_components(receivers.max_l) - num_components(shared_l)
    return jnp.pad(shared, ((0, 0), (0, 0), (0, missing)))


def project_linear_potential(
    potential: Float[Array, "points"], field: Float[Array, "points 3"], receivers: Receivers
) -> Float[Array, "points widths receiver_components"]:
    """Projections of V + E·(r - r_i) on unit-moment Gaussians at r_i: V for l = 0, E for l = 1.

    Args:
        potential: V at the points in V.
        field: E, the gradient of the potential, in V/Å (x, y, z).
        receivers: what the potential is projected on; widths do not matter.

    Returns:
        Projections in V/Å^l; a linear potential has none of degree 2 or more.
    """
    # R_00 = 1 becomes V, and R_1m(E) are the components of E.
    linear = solid_harmonics(field, min(receivers.max_l, 1)).at[:, 0].set(potential)
    missing = num_components(receivers.max_l) - linear.shape[1]
    padded = jnp.pad(linear, ((0, 0), (0, missing)))[:, None, :]
    return jnp.broadcast_to(padded, (len(padded), len(receivers.widths), padded.shape[2]))
