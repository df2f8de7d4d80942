"""Open boundary in which charges a little apart stand for dipoles, as in the PyTorch reference.

With a displacement h an atom is four charges, d_x/h at r + h x̂ and so on, and what is left of Q at
r; likewise the projection on a dipole is the difference of two potentials over h. Charges of
different atoms interact by A erf(r/√(2(σ² + σ_n²)))/(r + 10⁻⁶ Å). Only 13 of the 16 distances of
two atoms' charges are different ones. An atom's own Gaussian, and the potential elsewhere, are
those of exact dipoles.

Models that were trained so have the numbers of these formulas in their weights: an error of the
order of h that does not vanish, in energies (h = 0.02 Å) less than in field features (0.1 Å).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import Receivers, project_own
from mace_scf_jax.electrostatics.sums.open import OpenSum, Table

SOFTENING = 1e-6
"""Å that the reference adds to distances."""
_ONLY = (0, 0)
"""Key of the one group of terms."""
_CORNERS = ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))
"""Places of the charges of an atom in units of h: its own, then those of d_y, d_z, d_x."""


def _charges(max_l: int, displacement: float) -> Float[np.ndarray, "charges components"]:
    """Charges of an atom by its multipoles: also, transposed, projections by potentials there."""
    if max_l == 0:
        return np.ones((1, 1))
    charges = np.zeros((4, 4))
    charges[0] = 1.0, *(-1.0 / displacement,) * 3
    charges[1:, 1:] = np.eye(3) / displacement
    return charges


@functools.cache
def _shifts_and_table(
    receiver_max_l: int, source_max_l: int, displacement: float
) -> tuple[Float[np.ndarray, "shifts 3"], Float[np.ndarray, "shifts receivers sources"]]:
    """Vectors between charges of two atoms beside that of the atoms, and what interacts by each."""
    receivers, sources = (_charges(max_l, displacement) for max_l in (receiver_max_l, source_max_l))
    by_shift: dict[tuple[int, ...], np.ndarray] = {}
    for received, here in zip(receivers, _CORNERS, strict=False):
        for sent, there in zip(sources, _CORNERS, strict=False):
            shift = tuple(np.subtract(here, there).tolist())
            by_shift[shift] = by_shift.get(shift, 0.0) + np.outer(received, sent)
    return displacement * np.array(list(by_shift), dtype=float), np.stack(list(by_shift.values()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DisplacedSum(OpenSum):
    """The sum over all pairs of charges of different atoms of one system."""

    def project(
        self,
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"] | None = None,
    ) -> Float[Array, "points widths receiver_components"]:
        """Projections in V/Å^l; see `Summation`."""
        if points is not None:
            exact = OpenSum(self.positions, width=self.width, max_l=self.max_l)
            return exact.project(multipoles, receivers, points)
        return super().project(multipoles, receivers) + self._own(multipoles, receivers)

    def matrix(
        self, receivers: Receivers
    ) -> Float[Array, "atoms widths receiver_components atoms components"]:
        """Projections of every multipole in V/Å^l per e Å^l; see `Summation`."""
        pairs = super().matrix(receivers)
        num_atoms, num_multipoles = pairs.shape[-2:]
        unit = jnp.eye(num_multipoles, dtype=pairs.dtype)
        own = self._own(unit, receivers)  # [source component, width, receiver component]
        atoms = jnp.arange(num_atoms)
        return pairs.at[atoms, :, :, atoms].add(jnp.moveaxis(own, 0, -1))

    def _own(self, multipoles: Float[Array, "atoms components"], receivers: Receivers) -> Array:
        return project_own(multipoles, receivers, width=self.width, max_l=self.max_l)

    def _table(self, receivers: Receivers) -> Table:
        found = _shifts_and_table(receivers.max_l, self.max_l, receivers.displacement)
        return {_ONLY: found[1]}

    def _terms(
        self,
        centres: Float[Array, "receivers 3"],
        terms: Iterable[tuple[int, int]],
        receivers: Receivers,
    ) -> Iterator[dict[tuple[int, int], Float[Array, "shifts receivers sources"]]]:
        """Interaction of unit charges of all pairs of atoms, by shift, for each width."""
        shifts, _ = _shifts_and_table(receivers.max_l, self.max_l, receivers.displacement)
        vectors = centres[:, None, :] - self.positions[None, :, :]
        is_own = jnp.all(vectors == 0.0, axis=-1)
        shifted = vectors + jnp.asarray(shifts, vectors.dtype)[:, None, None, :]
        squared = jnp.sum(shifted * shifted, axis=-1)
        lengths = jnp.sqrt(jnp.where(is_own | (squared == 0.0), 1.0, squared))
        for width in receivers.widths:
            scale = float(np.sqrt(2.0 * (self.width**2 + width**2)))
            potentials = jax.lax.erf(lengths / scale) / (lengths + SOFTENING)
            yield {_ONLY: jnp.where(is_own, 0.0, potentials)}
