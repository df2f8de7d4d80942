"""Cardinal B-splines: smooth, local, and the same shape at every grid point.

The spline M_p of order p is the p-fold convolution of a box of width 1. It is a polynomial of
degree p - 1 between grid points, has p - 2 continuous derivatives, and its integer translates sum
to 1. A point at u = n + t, 0 ≤ t < 1, touches the p grid points n, …, n + p - 1 with the weights
M_p(t + p - 1 - j), j = 0 … p - 1. All points are thus shifted by the same (p - 1) grid steps less
half a support, which cancels wherever spreading and interpolation occur in pairs.

Source: as particle-mesh weights, Essmann et al., J. Chem. Phys. 103, 8577 (1995).
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.cache
def _coefficients(order: int) -> np.ndarray:
    """Coefficients [power, point] of the weights as polynomials in t - ½, exact before rounding.

    From M_p(x) = Σ_s (-1)^s binomial(p, s) (x - s)₊^(p-1) / (p-1)!, expanded about t = ½.
    """
    degree = order - 1
    coefficients = np.zeros((order, order))
    for point in range(order):
        piece = order - 1 - point  # the spline's argument lies in [piece, piece + 1]
        for power in range(order):
            total = sum(
                (-1) ** step
                * math.comb(order, step)
                * Fraction(2 * (piece - step) + 1, 2) ** (degree - power)
                for step in range(piece + 1)
            )
            coefficients[power, point] = float(
                total * math.comb(degree, power) / math.factorial(degree)
            )
    return coefficients


def spline_weights(
    offsets: Float[Array, "*shape"], *, order: int, max_derivative: int
) -> Float[Array, "*shape derivatives order"]:
    """Weights of the grid points around each point, and their derivatives.

    Args:
        offsets: distance t from the grid point below, in grid steps, 0 ≤ t < 1.
        order: order p of the splines.
        max_derivative: highest derivative wanted, at most p - 1.

    Returns:
        d^m/dt^m of the weight of each of the p points, for m = 0 … max_derivative.
    """
    coefficients = _coefficients(order)
    centred = (offsets - 0.5)[..., None]
    derivatives = []
    for _ in range(max_derivative + 1):
        values = jnp.broadcast_to(
            jnp.asarray(coefficients[-1], dtype=offsets.dtype), (*offsets.shape, order)
        )
        for row in coefficients[-2::-1]:
            values = values * centred + jnp.asarray(row, dtype=offsets.dtype)
        derivatives.append(values)
        powers = np.arange(1, len(coefficients))
        coefficients = coefficients[1:] * powers[:, None]
    return jnp.stack(derivatives, axis=-2)


def transform(fractions: np.ndarray, order: int) -> np.ndarray:
    """Modulus of the Fourier transform of the spline, (sin πx / πx)^p.

    Args:
        fractions: wavenumber x in turns per grid step.
        order: order p of the spline.

    Returns:
        Its transform at the wavenumbers.
    """
    return np.sinc(fractions) ** order


def influence(num_points: int, order: int) -> Float[np.ndarray, "modes"]:
    """Factor by which spreading and interpolation with splines along one axis are undone.

    It is W²/(Σ W²)², with W the transform of the spline and the sum over all modes that the grid
    cannot tell apart: the optimal influence function of Hockney and Eastwood (Computer Simulation
    Using Particles, 1988) for a kernel that the grid resolves. Close to 1/W², but bounded. The
    highest mode of an even grid, whose sign is undefined, gets 0.

    Args:
        num_points: number of grid points along the axis.
        order: order p of the splines.

    Returns:
        The factor of each mode, in the order of `numpy.fft.fftfreq`.
    """
    fractions = np.fft.fftfreq(num_points)
    aliases = np.arange(-64, 65)
    total = np.sum(transform(fractions[:, None] + aliases, order) ** 2, axis=1)
    factor = transform(fractions, order) ** 2 / total**2
    factor[np.isclose(np.abs(fractions), 0.5)] = 0.0
    return factor
