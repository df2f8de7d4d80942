"""Corrections that turn the fully periodic sum into that of a slab or of an isolated molecule.

Both depend on the density through its lowest moments alone: total charge q, dipole D and second
moment M = Σ Q_i r_i² + 2 d_i·r_i. Multipoles with l ≥ 2 do not enter: expanded about an atom, the
functions 1, r and r² contain no harmonic of degree 2 or more.

A correction is the potential that these moments add, linear in the multipoles like the sums:

    slab:      ΔV(r) = 4πA D_z z/Ω                            ΔE = 2πA D_z²/Ω
    molecule:  ΔV(r) = αAq/L + 2πA/(3Ω) (2 D·r - q r² - M)    ΔE = ½ αAq²/L + 2πA/(3Ω) (|D|² - qM)

ΔE is half the interaction of the density with ΔV. The potential of a slab is relative to z = 0.

Sources: slab, Yeh and Berkowitz, J. Chem. Phys. 111, 3155 (1999); molecule, Makov and Payne,
Phys. Rev. B 51, 4014 (1995), where the spread of the Gaussians, 3 σ² q in ∫ ρ r², is left out as in
the PyTorch reference (it matters for charged systems, as 2πA σ² q²/Ω).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.boundary import OPEN, SLAB, BoundaryError, BoundaryMode
from mace_scf_jax.electrostatics.cells import cell_volume
from mace_scf_jax.electrostatics.gaussians import Receivers, project_linear_potential
from mace_scf_jax.electrostatics.moments import moments
from mace_scf_jax.units import COULOMB_CONSTANT

CUBIC_MADELUNG_CONSTANT = 2.837297
"""α of a simple cubic lattice of point charges in a neutralising background."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correction:
    """Which corrections a system gets, and the volume that they depend on."""

    slab: Float[Array, ""]
    """1 if the slab correction applies, else 0."""
    molecule: Float[Array, ""]
    """1 if the molecule correction applies, else 0."""
    volume: Float[Array, ""]
    """Cell volume Ω in Å³."""
    box_length: Float[Array, ""]
    """L = Ω^(1/3) in Å."""

    def project(
        self,
        positions: Float[Array, "atoms 3"],
        multipoles: Float[Array, "atoms components"],
        receivers: Receivers,
        points: Float[Array, "points 3"],
    ) -> Float[Array, "points widths receiver_components"]:
        """Project the potential that the correction adds.

        Args:
            positions: atomic positions in Å.
            multipoles: atomic multipoles in e Å^l, zero for padding atoms.
            receivers: what the potential is projected on.
            points: centres of the receivers in Å.

        Returns:
            Projections in V/Å^l: the potential for l = 0, its gradient for l = 1.
        """
        density = moments(positions, multipoles)
        charge, dipole, second_moment = density.charge, density.dipole, density.second_moment
        per_volume = COULOMB_CONSTANT / self.volume
        slab = (4.0 * math.pi) * self.slab * per_volume * dipole[2]
        molecule = (2.0 * math.pi / 3.0) * self.molecule * per_volume
        monopole = (CUBIC_MADELUNG_CONSTANT * COULOMB_CONSTANT) * self.molecule / self.box_length
        squared = jnp.sum(points * points, axis=-1)
        along_dipole = jnp.sum(points * dipole, axis=-1)
        potential = (
            slab * points[:, 2]
            + monopole * charge
            + molecule * (2.0 * along_dipole - charge * squared - second_moment)
        )
        field = (2.0 * molecule) * (dipole - charge * points)
        return project_linear_potential(potential, field.at[:, 2].add(slab), receivers)


def correction(
    mode: BoundaryMode,
    pbc: Bool[Array, "3"],
    cell: Float[Array, "3 3"],
    *,
    exponent: float = 1.0 / 3.0,
) -> Correction | None:
    """Choose the corrections of a system without branching on its pbc flags.

    Args:
        mode: boundary condition.
        pbc: periodicity along x, y, z; used by ``mixed_periodic`` only.
        cell: lattice vectors in Å (rows).
        exponent: x in the box length L = Ω^x.

    Returns:
        The choice; None where the sum itself is that of the boundary condition.

    Raises:
        BoundaryError: ``mode`` is ``auto``.
    """
    match mode:
        case BoundaryMode.PBC | BoundaryMode.REALSPACE:
            return None
        case BoundaryMode.EXACT | BoundaryMode.DISPLACED_CHARGES:
            return None
        case BoundaryMode.SLAB:
            slab, molecule = jnp.asarray(True), jnp.asarray(False)
        case BoundaryMode.MOLECULE_IN_BOX:
            slab, molecule = jnp.asarray(False), jnp.asarray(True)
        case BoundaryMode.MIXED_PERIODIC:
            slab = jnp.all(pbc == jnp.asarray(SLAB))
            molecule = jnp.all(pbc == jnp.asarray(OPEN))
        case _:
            raise BoundaryError(f"boundary {mode.value!r}: resolve 'auto' on the host first")
    volume = cell_volume(cell)
    return Correction(
        slab=slab.astype(volume.dtype),
        molecule=molecule.astype(volume.dtype),
        volume=volume,
        box_length=volume**exponent,
    )
