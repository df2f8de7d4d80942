"""The Coulomb interaction cut off along open directions.

The slab is repeated along its normal n after L. With the interaction cut off at a distance of L/2
along n, no atom sees a copy while thickness and Gaussian tails together fit into L/2; what remains
is the sum over two directions, exact to `TAILS`, whatever the vacuum. With k = G + k_n n, k_n L/2π
the integer m,

    ∫ exp(-ik·r)/(4π r) over |n·r| < L/2  =  (1 - (-1)^m exp(-G L/2))/k²

For G = 0, the average over the plane, this is the transform of -|z|/2, whose value at k = 0 is
-L²/8: the term of a slab with net charge. Its energy, forces and potentials do not depend on where
it stands, and their zero is where -2πA/S Σ q_i q_j |z_ij| has it, S being the area of the cell in
the plane.

An open structure on a grid is put into a box, and the interaction is cut off at a distance of R,

    ∫ exp(-ik·r)/(4π r) over |r| < R  =  (1 - cos kR)/k²,  R²/2 at k = 0

Sources: Rozzi et al., Phys. Rev. B 73, 205119 (2006); the same limit as that of the corrected sum
of Ballenegger, Arnold and Cerdà, J. Chem. Phys. 131, 094107 (2009).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.boundary import is_slab

TAILS = 6.0
"""Distance, in units of the width of two Gaussians together, beyond which they count as apart: what
is left of the interaction is of the order of erfc(6/√2) = 2e-9."""


_ROUND_OFF = 1e-6


def room_beside_slab(
    positions: Float[Array, "atoms 3"],
    atom_mask: Bool[Array, "atoms"],
    normal: Float[Array, "3"],
    repeat: Float[Array, ""],
    *,
    tails: float,
) -> Float[Array, "2"]:
    """The range of heights in which no atom of a slab is further than L/2 less the tails.

    Args:
        positions: Å.
        atom_mask: False for padding atoms.
        normal: unit vector along the open direction.
        repeat: L in Å.
        tails: length in Å to which Gaussians reach.

    Returns:
        Lowest and highest height along the normal, in Å.
    """
    heights = jax.lax.stop_gradient(positions @ normal)
    reach = 0.5 * (1.0 + _ROUND_OFF) * repeat - tails
    lowest = jnp.min(jnp.where(atom_mask, heights, jnp.inf))
    highest = jnp.max(jnp.where(atom_mask, heights, -jnp.inf))
    return jnp.stack([highest - reach, lowest + reach])


def keeps_copies_apart(
    positions: Float[Array, "atoms 3"],
    atom_mask: Bool[Array, "atoms"],
    normal: Float[Array, "3"],
    repeat: Float[Array, ""],
    *,
    tails: float,
) -> Bool[Array, ""]:
    """Whether no atom of a slab sees a copy of another; arguments of `room_beside_slab`."""
    lowest, highest = room_beside_slab(positions, atom_mask, normal, repeat, tails=tails)
    heights = positions @ normal
    return jnp.all(~atom_mask | ((heights >= lowest) & (heights <= highest)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Truncation:
    """Which directions of a structure are open, and where copies follow along them."""

    pbc: Bool[Array, "3"]
    """Periodic directions."""
    repeat: Float[Array, ""]
    """L of a slab in Å; infinite without periodic direction, for which a sum over k is nothing."""

    def inverse_square(
        self, indices: Sequence[Float[Array, "..."]], dual: Float[Array, "3 3"]
    ) -> Float[Array, "..."]:
        """The factor that takes the place of 1/k².

        Args:
            indices: integers of k along each axis, as arrays that broadcast.
            dual: rows b with b_i · a_j = δ_ij in 1/Å, of the cell that is repeated.

        Returns:
            In Å²; at k = 0 what a charged slab needs, and 0 for a crystal.
        """
        metric = _metric(dual)
        in_plane = [jnp.where(flag, n, 0.0) for n, flag in zip(indices, self.pbc, strict=True)]
        across = sum(n - periodic for n, periodic in zip(indices, in_plane, strict=True))
        is_flat = sum(jnp.abs(n) for n in in_plane) == 0.0
        is_zero = is_flat & (across == 0.0)
        cut = jnp.where(is_slab(self.pbc), 0.5 * self.repeat, 0.0)
        wavenumber = jnp.sqrt(jnp.where(is_flat, 1.0, _squared(in_plane, metric)))
        decay = jnp.where(is_flat, 1.0, jnp.exp(-wavenumber * cut))
        sign = 1.0 - 2.0 * jnp.mod(across, 2.0)
        transform = jnp.where(is_slab(self.pbc), 1.0 - sign * decay, 1.0)
        inverse = transform / jnp.where(is_zero, 1.0, _squared(indices, metric))
        return jnp.where(jnp.isinf(self.repeat), 0.0, jnp.where(is_zero, -0.5 * cut * cut, inverse))


@dataclasses.dataclass(frozen=True)
class SphericalTruncation:
    """A distance at which the interaction of an open structure is cut off."""

    cut: float
    """R in Å."""

    def inverse_square(
        self, indices: Sequence[Float[Array, "..."]], dual: Float[Array, "3 3"]
    ) -> Float[Array, "..."]:
        """The factor that takes the place of 1/k²; see `Truncation.inverse_square`."""
        squared = _squared(indices, _metric(dual))
        is_zero = squared == 0.0
        sine = jnp.sin(0.5 * self.cut * jnp.sqrt(squared))
        inverse = 2.0 * sine * sine / jnp.where(is_zero, 1.0, squared)
        return jnp.where(is_zero, 0.5 * self.cut**2, inverse)


def _metric(dual: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Scalar products of the reciprocal vectors in 1/Å²."""
    return (4.0 * math.pi**2) * jnp.matmul(dual, dual.T, precision=jax.lax.Precision.HIGHEST)


def _squared(
    indices: Sequence[Float[Array, "..."]], metric: Float[Array, "3 3"]
) -> Float[Array, "..."]:
    """Squared length of the vector with given indices."""
    total = jnp.zeros((), metric.dtype)
    for i, m in enumerate(indices):
        for j, n in enumerate(indices):
            total += metric[i, j] * m * n
    return total
