"""Spreading of point sources and their derivatives on a periodic grid, and the reverse.

A source at u (in grid steps) with coefficients c_abc contributes
Σ c_abc ∂^a_x ∂^b_y ∂^c_z M(u_x - g_x) M(u_y - g_y) M(u_z - g_z) to grid point g. `interpolate` is
the exact transpose of `spread`. Monomials a + b + c ≤ max_l are ordered degree by degree as in
`polynomials.monomials_of_degree`, so those up to a lower degree come first.

Moving a point by du adds du ∂ to the derivatives that it carries. Both functions are differentiated
by this rule, which is cheaper than differentiating the weights: the gradient of spreading is one
interpolation of one degree more.

Atoms are visited in chunks, so that memory is that of the grid; the blocks of p³ grid points of a
chunk are formed again where derivatives need them. Many atoms are visited in the order of the grid,
which keeps the part of the grid that they touch in the cache.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.polynomials import Exponents, monomials_of_degree
from mace_scf_jax.electrostatics.sums.splines import spline_weights

_CHUNK = 512
"""Atoms visited at once: their blocks fit in the cache, and a step costs more than its overhead."""

_HIGHEST = jax.lax.Precision.HIGHEST
_IN_BOUNDS = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
_ROWS = jax.lax.ScatterDimensionNumbers(
    update_window_dims=(3,), inserted_window_dims=(0, 1), scatter_dims_to_operand_dims=(0, 1, 2)
)
_BLOCKS = jax.lax.GatherDimensionNumbers(
    offset_dims=(1, 2, 3), collapsed_slice_dims=(), start_index_map=(0, 1, 2)
)


@functools.cache
def monomial_positions(max_l: int) -> dict[Exponents, int]:
    """Index of each monomial a + b + c ≤ max_l among the coefficients of a source."""
    ordered = [key for degree in range(max_l + 1) for key in monomials_of_degree(degree)]
    return {key: index for index, key in enumerate(ordered)}


def _block_values(coefficients: Array, weights: Array, max_l: int) -> Array:
    """Contribution of each source to its block of grid points, one axis after the other."""
    index = monomial_positions(max_l)
    along_x, along_y, along_z = (weights[:, axis] for axis in range(3))
    zero = jnp.zeros((), weights.dtype)
    blocks = zero
    for a in range(max_l + 1):
        planes = zero
        for b in range(max_l + 1 - a):
            lines = zero
            for c in range(max_l + 1 - a - b):
                lines += coefficients[:, index[a, b, c], None] * along_z[:, c]
            planes += along_y[:, b, :, None] * lines[:, None, :]
        blocks += along_x[:, a, :, None, None] * planes[:, None, :, :]
    return blocks


def _block_sums(blocks: Array, weights: Array, max_l: int) -> Array:
    """Weighted sums over a block of grid points, one axis after the other."""
    along_x, along_y, along_z = (weights[:, axis] for axis in range(3))
    sums = {}
    for a in range(max_l + 1):
        planes = jnp.sum(along_x[:, a, :, None, None] * blocks, axis=1)
        for b in range(max_l + 1 - a):
            lines = jnp.sum(along_y[:, b, :, None] * planes, axis=1)
            for c in range(max_l + 1 - a - b):
                sums[a, b, c] = jnp.sum(along_z[:, c] * lines, axis=1)
    return jnp.stack([sums[key] for key in monomial_positions(max_l)], axis=-1)


def _corners_and_weights(points: Array, shape: tuple[int, int, int], order: int, max_l: int):
    """Lowest grid point that each source touches, and weights [points, 3, derivatives, order]."""
    below = jnp.floor(points)
    weights = spline_weights(points - below, order=order, max_derivative=max_l)
    corners = jnp.mod(below.astype(jnp.int32), jnp.asarray(shape, dtype=jnp.int32))
    return corners, weights


def _visiting_order(points: Array, shape: tuple[int, int, int]) -> Array:
    """Points by the row of the grid below them; along a row the cache needs no help.

    Row and index share one unsigned number, since sorting numbers is far faster than sorting
    indices by them. Where they would need more than 32 bits, neighbouring rows count as one.
    """
    count, rows = len(points), shape[0] * shape[1]
    rows_as_one = -(-rows * count // 2**32)
    below = jnp.floor(jax.lax.stop_gradient(points[:, :2])).astype(jnp.int32)
    below = jnp.mod(below, jnp.asarray(shape[:2], dtype=jnp.int32)).astype(jnp.uint32)
    row = (below[:, 0] * np.uint32(shape[1]) + below[:, 1]) // np.uint32(rows_as_one)
    keys = jnp.sort(row * np.uint32(count) + jnp.arange(count, dtype=jnp.uint32))
    return (keys % np.uint32(count)).astype(jnp.int32)


def _in_chunks(values: Array, num_chunks: int) -> Array:
    """Split the first axis; missing entries are zero."""
    missing = -len(values) % num_chunks
    padded = jnp.pad(values, ((0, missing),) + ((0, 0),) * (values.ndim - 1))
    return padded.reshape(num_chunks, -1, *values.shape[1:])


def _fold(grid: Array, shape: tuple[int, int, int]) -> Array:
    """Add what lies beyond the end of each axis to its start."""
    for axis, length in enumerate(shape):
        inside = jax.lax.slice_in_dim(grid, 0, length, axis=axis)
        beyond = jax.lax.slice_in_dim(grid, length, grid.shape[axis], axis=axis)
        missing = [(0, 0)] * 3
        missing[axis] = (0, length - beyond.shape[axis])
        grid = inside + jnp.pad(beyond, missing)
    return grid


@functools.cache
def _raising(max_l: int) -> np.ndarray:
    """1 where the derivative [monomial] along [axis] is the [monomial] of one degree more."""
    lower, higher = monomial_positions(max_l), monomial_positions(max_l + 1)
    tensor = np.zeros((len(lower), 3, len(higher)))
    for (a, b, c), row in lower.items():
        for axis, raised in enumerate([(a + 1, b, c), (a, b + 1, c), (a, b, c + 1)]):
            tensor[row, axis, higher[raised]] = 1.0
    return tensor


def spread(
    points: Float[Array, "points 3"],
    coefficients: Float[Array, "points monomials"],
    *,
    shape: tuple[int, int, int],
    order: int,
    max_l: int,
) -> Float[Array, "x y z"]:
    """Put sources on a periodic grid.

    Args:
        points: positions u in grid steps, anywhere.
        coefficients: factors of the derivatives of the spline; 0 for padding.
        shape: number of grid points along each axis, at least `order`.
        order: order p of the splines.
        max_l: highest derivative.

    Returns:
        The sum of the sources at every grid point.
    """
    return _spread(points, coefficients, shape, order, max_l)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _spread(
    points: Array, coefficients: Array, shape: tuple[int, int, int], order: int, max_l: int
) -> Array:
    num_chunks = max(1, -(-len(points) // _CHUNK))
    if num_chunks > 1:
        visited = _visiting_order(points, shape)
        points, coefficients = points[visited], coefficients[visited]
    corners, weights = _corners_and_weights(points, shape, order, max_l)
    steps = jnp.arange(order, dtype=jnp.int32)

    @jax.checkpoint
    def add(grid, chunk):
        corners, weights, coefficients = chunk
        rows = jnp.stack(
            jnp.broadcast_arrays(
                corners[:, 0, None, None] + steps[:, None],
                corners[:, 1, None, None] + steps,
                corners[:, 2, None, None],
            ),
            axis=-1,
        )
        blocks = _block_values(coefficients, weights, max_l)
        return jax.lax.scatter_add(grid, rows, blocks, _ROWS, mode=_IN_BOUNDS), None

    extended = jnp.zeros([length + order - 1 for length in shape], dtype=points.dtype)
    chunks = tuple(_in_chunks(values, num_chunks) for values in (corners, weights, coefficients))
    return _fold(jax.lax.scan(add, extended, chunks)[0], shape)


@functools.partial(_spread.defjvp, symbolic_zeros=True)
def _moved_sources(shape, order, max_l, primals, tangents):
    points, coefficients = primals
    moved, changed = tangents
    grid = _spread(points, coefficients, shape, order, max_l)
    if isinstance(moved, SymbolicZero):
        if isinstance(changed, SymbolicZero):
            return grid, jnp.zeros_like(grid)
        return grid, _spread(points, changed, shape, order, max_l)
    raising = jnp.asarray(_raising(max_l), dtype=points.dtype)
    change = jnp.einsum("nk,na,kaj->nj", coefficients, moved, raising, precision=_HIGHEST)
    if not isinstance(changed, SymbolicZero):
        change += jnp.pad(changed, ((0, 0), (0, change.shape[1] - changed.shape[1])))
    return grid, _spread(points, change, shape, order, max_l + 1)


def interpolate(
    points: Float[Array, "points 3"], grid: Float[Array, "x y z"], *, order: int, max_l: int
) -> Float[Array, "points monomials"]:
    """Values and derivatives of a periodic grid function at points; the transpose of `spread`.

    Args:
        points: positions u in grid steps, anywhere.
        grid: values at the grid points, at least `order` along each axis.
        order: order p of the splines.
        max_l: highest derivative.

    Returns:
        ∂^a_x ∂^b_y ∂^c_z of Σ_g grid[g] M(u - g), per grid step.
    """
    return _interpolate(points, grid, order, max_l)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _interpolate(points: Array, grid: Array, order: int, max_l: int) -> Array:
    x, y, z = grid.shape
    num_chunks = max(1, -(-len(points) // _CHUNK))
    visited = _visiting_order(points, (x, y, z)) if num_chunks > 1 else None
    in_order = points if visited is None else points[visited]
    corners, weights = _corners_and_weights(in_order, (x, y, z), order, max_l)
    extended = jnp.pad(grid, (0, order - 1), mode="wrap")

    @jax.checkpoint
    def read(chunk):
        corners, weights = chunk
        blocks = jax.lax.gather(extended, corners, _BLOCKS, (order,) * 3, mode=_IN_BOUNDS)
        return _block_sums(blocks, weights, max_l)

    chunks = tuple(_in_chunks(values, num_chunks) for values in (corners, weights))
    values = jax.lax.map(read, chunks)
    values = values.reshape(-1, values.shape[-1])[: len(points)]
    if visited is None:
        return values
    return jnp.zeros_like(values).at[visited].set(values, unique_indices=True)


@functools.partial(_interpolate.defjvp, symbolic_zeros=True)
def _moved_receivers(order, max_l, primals, tangents):
    points, grid = primals
    moved, changed = tangents
    if isinstance(moved, SymbolicZero):
        values = _interpolate(points, grid, order, max_l)
        change = jnp.zeros_like(values)
    else:
        higher = _interpolate(points, grid, order, max_l + 1)
        raising = jnp.asarray(_raising(max_l), dtype=points.dtype)
        values = higher[:, : raising.shape[0]]
        change = jnp.einsum("nj,na,kaj->nk", higher, moved, raising, precision=_HIGHEST)
    if not isinstance(changed, SymbolicZero):
        change += _interpolate(points, changed, order, max_l)
    return values, change
