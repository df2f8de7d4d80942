"""Grid and splines of a mesh sum from the accuracy that is asked for, and when a mesh pays.

Error of a mesh sum. The splines multiply a mode k by W(k), which is divided out; but the grid
cannot tell k from k + K, K a multiple of 2π/h along an axis, and what lies there is mixed in with
the relative weight W(k + K)/W(k) = (x/(1 - x))^p for the nearest one, x = k h/2π. Derivatives of
splines, which stand for multipoles of degree l, carry (k + K)^l instead of k^l. For sources without
order in their positions all modes are equally strong, so the mean square error relative to the mean
square of the field is a ratio of two integrals over k, with the Gaussian factor exp(-k² s²),
s² = ½ (σ² + σ_receiver²), and 1/k² squared as the common weight; it needs no structure. A mode
beyond π/h is lost and counts in full. Once errors of the source, once of the receiver; forces
are receivers of one degree more. `relative_error` is the largest of these over all outputs.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.sums.grid import Mesh, MeshError, SummationMethod

HIGHEST_ACCURACY = 1e-11
"""Below, rounding errors take over."""

MAX_POINTS = 2**28
"""Grid points that are still accepted: one grid of 2 GiB in float64."""

MESH_PAYS_FROM = 400
"""Atoms from which ``auto`` chooses a mesh. Measured for water, σ = 1.5 Å, l ≤ 1, two cores, 1e-5:
both methods take the same time a little below (energy and forces) or above (features too)."""

HIGHEST_ORDER = 14
_ORDER_ABOVE_DEGREE = 4  # keeps second derivatives of all outputs continuous

_GRID_COST = 12.0
"""Weight of a grid point against one grid point touched by one atom. In time the ratio is 3 to 6;
more is put here, since larger grids also cost memory and leave the cache."""

_SAFETY = 3.0
"""Between the root mean square of the estimate and what is promised."""

_LONGEST, _SHORTEST = 0.5, 9.0
"""Range of k s in the integrals; leaving out longer waves can only enlarge the estimate."""


def _outputs(settings: ElectrostaticsSettings) -> list[tuple[int, float, int]]:
    """Source degree, receiver width and receiver degree of every output."""
    source = settings.max_l
    outputs = [(source, 0.0, 0), (source, settings.smearing_width, source + 1)]
    if settings.features is not None:
        # The narrowest receivers see the shortest waves.
        outputs.append((source, min(settings.features.widths), settings.features.max_l + 1))
    return outputs


def relative_error(
    settings: ElectrostaticsSettings, *, spacing: float, order: int, skewness: float = 1.0
) -> float:
    """Expected root mean square error of the least accurate output, relative to its magnitude.

    Args:
        settings: widths and degrees of density and features.
        spacing: largest h = |a_i|/n_i along the three lattice vectors, in Å.
        order: order p of the splines.
        skewness: largest |a_i| over the distance of the lattice planes that it crosses.

    Returns:
        The largest relative error of energy, forces, features (with their derivatives) and
        potentials.
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(12)
    cosines = 0.5 * (nodes + 1.0)
    largest = 0.0
    for source_l, width, receiver_l in _outputs(settings):
        squared_width = 0.5 * (settings.smearing_width**2 + width**2)
        k = np.linspace(_LONGEST, _SHORTEST, 120) / math.sqrt(squared_width)
        weight = np.exp(-2.0 * k**2 * squared_width) / k**2
        fraction = np.minimum(k[:, None] * cosines * spacing / (2.0 * math.pi), 0.5)
        # Three axes, each averaged over the directions of k.
        mixed = 3.0 * 0.5 * node_weights * (fraction / (1.0 - fraction)) ** (2 * order)
        aliased = 2.0 * math.pi / spacing * skewness * (1.0 - fraction)
        aliased = np.maximum(aliased, k[:, None])
        source = np.sum(mixed * aliased ** (2 * source_l), axis=1)
        receiver = np.sum(mixed * aliased ** (2 * receiver_l), axis=1)
        exact = weight * k ** (2 * (source_l + receiver_l))
        error = weight * (k ** (2 * receiver_l) * source + k ** (2 * source_l) * receiver)
        largest = max(largest, math.sqrt(np.sum(error) / np.sum(exact)))
    return largest


def _largest_spacing(settings: ElectrostaticsSettings, order: int, skewness: float) -> float:
    """Largest spacing that reaches the accuracy of the settings, in Å, by bisection."""
    target = settings.mesh_accuracy / _SAFETY
    low, high = 0.0, 2.0 * settings.smearing_width
    for _ in range(20):
        middle = 0.5 * (low + high)
        error = relative_error(settings, spacing=middle, order=order, skewness=skewness)
        low, high = (middle, high) if error <= target else (low, middle)
    return low


def smooth_length(least: int) -> int:
    """Smallest 2^a 3^b 5^c 7^d that is not below a number: lengths that transform fast."""
    length = least
    while True:
        rest = length
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def choose_mesh(
    settings: ElectrostaticsSettings, cell: Float[np.ndarray, "*graphs 3 3"], num_atoms: int
) -> Mesh:
    """The cheapest grid and splines that reach the accuracy of the settings.

    Args:
        settings: density, features and `mesh_accuracy`.
        cell: lattice vectors in Å (rows) of one system, or of all that share the grid (host array).
        num_atoms: number of atoms, which decides between wide splines and fine grids.

    Returns:
        The choice. It holds for all cells whose lattice vectors are no longer.

    Raises:
        MeshError: the accuracy is out of reach, or needs too large a grid.
    """
    if not HIGHEST_ACCURACY <= settings.mesh_accuracy < 1.0:
        raise MeshError(
            f"mesh_accuracy must lie between {HIGHEST_ACCURACY:g} (rounding) and 1, found "
            f"{settings.mesh_accuracy:g}"
        )
    cells = np.asarray(cell, dtype=float).reshape(-1, 3, 3)
    if not np.all(np.isfinite(cells)) or np.any(np.linalg.det(cells) == 0.0):
        raise MeshError("a mesh sum needs a cell of finite, non-zero volume")
    all_lengths = np.linalg.norm(cells, axis=-1)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cells), axis=-2)
    skewness = float(np.max(all_lengths / heights))
    highest_l = max(settings.max_l, 0 if settings.features is None else settings.features.max_l)
    candidates = []
    for order in range(highest_l + _ORDER_ABOVE_DEGREE, HIGHEST_ORDER + 1):
        spacing = _largest_spacing(settings, order, skewness)
        least = np.maximum(np.ceil(all_lengths.max(axis=0) / max(spacing, 1e-9)), order)
        if np.prod(least) > MAX_POINTS:
            continue
        mesh = Mesh(tuple(smooth_length(int(length)) for length in least), order)
        candidates.append((num_atoms * order**3 + _GRID_COST * mesh.num_points, mesh))
    if not candidates:
        raise MeshError(
            f"mesh_accuracy {settings.mesh_accuracy:g} with width {settings.smearing_width:g} Å "
            f"needs more than {MAX_POINTS} grid points in a cell with edges of "
            f"{', '.join(f'{length:.4g}' for length in all_lengths.max(axis=0))} Å"
        )
    return min(candidates, key=lambda candidate: candidate[0])[1]


def resolve_method(
    settings: ElectrostaticsSettings, cell: Float[np.ndarray, "*graphs 3 3"], num_atoms: int
) -> ElectrostaticsSettings:
    """Fix method and grid for systems of one size: what ``auto`` and ``mesh`` leave to the host.

    Args:
        settings: density, features, method and `mesh_accuracy`.
        cell: lattice vectors in Å (rows) of one system, or of all that share the grid (host array).
        num_atoms: number of atoms in the largest system.

    Returns:
        Settings with method ``direct``, or ``mesh`` and a mesh. A mesh that is already set stays.

    Raises:
        MeshError: ``mesh`` is asked for with open boundary, or its accuracy is out of reach.
    """
    method = settings.method
    if settings.boundary is BoundaryMode.REALSPACE:
        if method is SummationMethod.MESH:
            raise MeshError("a mesh sum is periodic; open boundary is summed over pairs of atoms")
        method = SummationMethod.DIRECT
    if method is SummationMethod.AUTO:
        method = SummationMethod.MESH if num_atoms >= MESH_PAYS_FROM else SummationMethod.DIRECT
    if method is SummationMethod.DIRECT:
        return dataclasses.replace(settings, method=method, mesh=None)
    mesh = settings.mesh or choose_mesh(settings, cell, num_atoms)
    return dataclasses.replace(settings, method=method, mesh=mesh)
