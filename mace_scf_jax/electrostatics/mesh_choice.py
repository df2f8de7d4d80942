"""When a mesh pays, and its grid and splines, from the accuracy that is asked for.

`choose_mesh` decides for a structure, or for several that share a grid. `auto` takes a mesh from
`MESH_PAYS_ABOVE` atoms on: both sums grow with the volume alike, the direct one with the number of
atoms too, so that neither width nor accuracy changes the size much where they cost the same.

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

import functools
import logging
import math

import numpy as np
from jaxtyping import Float

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings, SummationMethod
from mace_scf_jax.mesh import Mesh, MeshError, OpenMesh, grid_length
from mace_scf_jax.messages import FILES_ONLY

logger = logging.getLogger(__name__)

HIGHEST_ACCURACY = 1e-11
"""Below, rounding errors take over."""

MAX_POINTS = 2**28
"""Grid points that are still accepted: one grid of 2 GiB in float64."""

MESH_PAYS_ABOVE = 1024
"""Atoms above which ``auto`` chooses a mesh; a power of two, as the sizes that structures of a
prediction are grouped by."""

OPEN_MESH_PAYS_ABOVE = 1024
"""The same for structures without periodic direction, against the sum over pairs."""

HIGHEST_ORDER = 14
_ORDER_ABOVE_DEGREE = 4  # keeps second derivatives of all outputs continuous

_GRID_COST = 12.0
"""Weight of a grid point against one grid point touched by one atom. In time the ratio is 3 to 6;
more is put here, since larger grids also cost memory and leave the cache."""

_ATOMS_PER_VOLUME = 0.1
"""Atoms in Å³ for which the costs of splines and grid points are weighed: as in liquid water."""

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


@functools.lru_cache(maxsize=256)
def _largest_spacing(settings: ElectrostaticsSettings, order: int, skewness: float) -> float:
    """Largest spacing that reaches the accuracy of the settings, in Å, by bisection."""
    target = settings.mesh_accuracy / _SAFETY
    low, high = 0.0, 2.0 * settings.smearing_width
    for _ in range(20):
        middle = 0.5 * (low + high)
        error = relative_error(settings, spacing=middle, order=order, skewness=skewness)
        low, high = (middle, high) if error <= target else (low, middle)
    return max(low, 1e-9)


@functools.lru_cache(maxsize=64)
def cheapest_order(settings: ElectrostaticsSettings) -> int:
    """Order of the splines for which a dense system costs least: wide splines or fine grids.

    It does not depend on the structure, so that structures can share a mesh.

    Args:
        settings: density, features and `mesh_accuracy`.
    """
    highest_l = max(settings.max_l, 0 if settings.features is None else settings.features.max_l)

    def cost(order: int) -> float:
        spacing = _largest_spacing(settings, order, 1.0)
        return _ATOMS_PER_VOLUME * order**3 + _GRID_COST / spacing**3

    return min(range(highest_l + _ORDER_ABOVE_DEGREE, HIGHEST_ORDER + 1), key=cost)


def choose_mesh(
    settings: ElectrostaticsSettings,
    cell: Float[np.ndarray, "*graphs 3 3"],
    num_atoms: int,
    *,
    largest_strain: float = 0.0,
) -> Mesh | None:
    """The mesh that structures get; None if their sums are direct.

    Args:
        settings: density, features, `sums` and `mesh_accuracy`.
        cell: lattice vectors in Å (rows) of one system, or of all that share the grid (host array).
        num_atoms: number of atoms of the largest system, by which ``auto`` decides.
        largest_strain: range of cells that the mesh is to serve: any cell A (1 + ε), where ε is
            symmetric with eigenvalues of at most this magnitude.

    Returns:
        A grid fine enough for each of the cells. With an equal cell of other atoms it is the same.

    Raises:
        MeshError: a mesh is asked for with open boundary, or its accuracy is out of reach.
    """
    if not uses_mesh(settings, num_atoms):
        return None
    _check_accuracy(settings)
    cells = np.asarray(cell, dtype=float).reshape(-1, 3, 3)
    if not np.all(np.isfinite(cells)) or np.any(np.linalg.det(cells) == 0.0):
        raise MeshError("a mesh sum needs a cell of finite, non-zero volume")
    lengths = np.linalg.norm(cells, axis=-1)
    # Distances of lattice planes are 1/|b|. A strain changes lengths and distances by 1 ± ε.
    skewness = float(np.max(lengths * np.linalg.norm(np.linalg.inv(cells), axis=-2)))
    skewness *= (1.0 + largest_strain) / (1.0 - largest_strain)
    skewness = math.sqrt(2.0) ** max(0, math.ceil(2.0 * math.log2(skewness) - 1e-3))
    order = cheapest_order(settings)
    spacing = _largest_spacing(settings, order, skewness)
    longest = lengths.max(axis=0) * (1.0 + largest_strain)
    least = np.maximum(np.ceil(longest / spacing), order)
    if np.prod(least) > MAX_POINTS:
        raise MeshError(
            f"mesh_accuracy {settings.mesh_accuracy:g} with width {settings.smearing_width:g} Å "
            f"needs more than {MAX_POINTS} grid points in a cell with edges of "
            f"{', '.join(f'{length:.4g}' for length in longest)} Å"
        )
    x, y, z = (grid_length(int(length)) for length in least)
    return Mesh((x, y, z), order, spacing, skewness)


def _check_accuracy(settings: ElectrostaticsSettings) -> None:
    if not HIGHEST_ACCURACY <= settings.mesh_accuracy < 1.0:
        raise MeshError(
            f"mesh_accuracy must lie between {HIGHEST_ACCURACY:g} (rounding) and 1, found "
            f"{settings.mesh_accuracy:g}"
        )


def choose_open_mesh(
    settings: ElectrostaticsSettings, positions: Float[np.ndarray, "atoms 3"]
) -> OpenMesh | None:
    """The mesh of a structure without periodic direction in the boundary condition ``exact``.

    Args:
        settings: density, features, `sums` and `mesh_accuracy`.
        positions: Å (host array).

    Returns:
        A grid with room for somewhat larger structures; None if its sum is over pairs.

    Raises:
        MeshError: the accuracy is out of reach, or a mesh is asked for where there is none.
    """
    if settings.boundary is BoundaryMode.DISPLACED_CHARGES:
        if settings.sums is SummationMethod.MESH:
            raise MeshError(
                "sums: found mesh, expected direct or auto: displaced charges of an open structure "
                "are summed over pairs"
            )
        return None
    pairs = settings.sums is SummationMethod.AUTO and len(positions) <= OPEN_MESH_PAYS_ABOVE
    if settings.tails is None or pairs or settings.sums is SummationMethod.DIRECT:
        return None
    _check_accuracy(settings)
    lowest, highest = positions.min(axis=0), positions.max(axis=0)
    radius = np.linalg.norm(positions - 0.5 * (lowest + highest), axis=1).max()
    order = cheapest_order(settings)
    spacing = _largest_spacing(settings, order, 1.0)
    diameter = _with_room(2.0 * radius, spacing)
    extent = [_with_room(length, spacing) for length in (highest - lowest).tolist()]
    made = OpenMesh.around(extent, diameter, settings.tails, order=order, spacing=spacing)
    if made.mesh.num_points > MAX_POINTS:
        raise MeshError(
            f"mesh_accuracy {settings.mesh_accuracy:g} with width {settings.smearing_width:g} Å "
            f"needs more than {MAX_POINTS} grid points for an open structure with a diameter of "
            f"{2.0 * radius:.4g} Å"
        )
    return made


def _with_room(length: float, spacing: float) -> float:
    """A length of at least that, of a series that few structures share but moving atoms do."""
    steps = math.ceil(8.0 * math.log2(1.0 + length / spacing))
    return spacing * 2.0 ** (steps / 8.0)


def uses_mesh(settings: ElectrostaticsSettings, num_atoms: int) -> bool:
    """Whether structures of a size are summed on a mesh; what ``auto`` decides is logged once.

    Args:
        settings: of the electrostatics.
        num_atoms: number of atoms.

    Raises:
        MeshError: a mesh is asked for with open boundary.
    """
    if settings.boundary is BoundaryMode.REALSPACE:
        if settings.sums is SummationMethod.MESH:
            raise MeshError(
                "sums: found mesh, expected direct or auto: open boundary is summed over pairs of "
                "atoms"
            )
        return False
    if settings.sums is not SummationMethod.AUTO:
        return settings.sums is SummationMethod.MESH
    large = num_atoms > MESH_PAYS_ABOVE
    _say(large)
    return large


@functools.cache
def _say(large: bool) -> None:
    than = f"more than {MESH_PAYS_ABOVE}" if large else f"at most {MESH_PAYS_ABOVE}"
    how = "on a mesh" if large else "directly, over wavevectors"
    logger.info("Coulomb sums of structures of %s atoms: %s", than, how, extra=FILES_ONLY)
