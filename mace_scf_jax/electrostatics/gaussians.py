"""Gaussian multipoles φ_lm(r) = C_l Y_lm(r̂) r^l exp(-r²/2σ²): norms, transforms, self terms.

Two normalisations occur. Densities have unit multipole moment, ∫ φ_lm R_lm = 1. Field features are
projections on receivers with C_l ∫ r^(l+2) exp(-r²/2σ²) dr = 1, as in the PyTorch reference.
Everything is computed with unit moments, for which the Fourier transform is
(-i)^l/(2l-1)!! · R_lm(k) exp(-k²σ²/2); `receiver_scale` converts at the end.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.harmonics import degrees, solid_harmonics
from mace_scf_jax.units import FIELD_CONSTANT


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
