"""Corrections that turn the fully periodic sum into that of a slab or of an isolated molecule.

Both depend on the density through its lowest moments alone: total charge q, dipole D and second
moment M = Σ Q_i r_i² + 2 d_i·r_i. Multipoles with l ≥ 2 do not enter: expanded about an atom, the
functions 1, r and r² contain no harmonic of degree 2 or more.

At an atom a correction acts as a potential and a field (its gradient): the derivatives of the
energy with respect to the atom's charge and dipole. The potential of a slab is relative to z = 0.

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
from mace_scf_jax.electrostatics.moments import Moments
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


def correction(
    mode: BoundaryMode,
    pbc: Bool[Array, "3"],
    volume: Float[Array, ""],
    *,
    exponent: float = 1.0 / 3.0,
) -> Correction:
    """Choose the corrections of a system without branching on its pbc flags.

    Args:
        mode: boundary condition.
        pbc: periodicity along x, y, z; used by ``mixed_periodic`` only.
        volume: cell volume in Å³.
        exponent: x in the box length L = Ω^x.

    Returns:
        The choice.

    Raises:
        BoundaryError: ``mode`` has no periodic sum to correct, or is ``auto``.
    """
    match mode:
        case BoundaryMode.PBC:
            slab, molecule = jnp.asarray(False), jnp.asarray(False)
        case BoundaryMode.SLAB:
            slab, molecule = jnp.asarray(True), jnp.asarray(False)
        case BoundaryMode.MOLECULE_IN_BOX:
            slab, molecule = jnp.asarray(False), jnp.asarray(True)
        case BoundaryMode.MIXED_PERIODIC:
            slab = jnp.all(pbc == jnp.asarray(SLAB))
            molecule = jnp.all(pbc == jnp.asarray(OPEN))
        case _:
            raise BoundaryError(
                f"boundary {mode.value!r} has no periodic sum; resolve 'auto' on the host first"
            )
    return Correction(
        slab=slab.astype(volume.dtype),
        molecule=molecule.astype(volume.dtype),
        volume=volume,
        box_length=volume**exponent,
    )


def energy(correction: Correction, moments: Moments) -> Float[Array, ""]:
    """Energy that removes the interaction with the images that a system does not have.

    Args:
        correction: the corrections that apply.
        moments: moments of the density.

    Returns:
        Slab: 2πA D_z²/Ω. Molecule: ½ α A q²/L + 2πA/(3Ω) (|D|² - q M). In eV.
    """
    charge, dipole, second_moment = moments.charge, moments.dipole, moments.second_moment
    slab = (2.0 * math.pi) * dipole[2] ** 2 / correction.volume
    monopole = (0.5 * CUBIC_MADELUNG_CONSTANT) * charge**2 / correction.box_length
    higher = jnp.sum(dipole * dipole) - charge * second_moment
    molecule = monopole + (2.0 * math.pi / 3.0) * higher / correction.volume
    return COULOMB_CONSTANT * (correction.slab * slab + correction.molecule * molecule)


def potential_and_field(
    correction: Correction, moments: Moments, points: Float[Array, "points 3"]
) -> tuple[Float[Array, "points"], Float[Array, "points 3"]]:
    """Correction of the potential at points, and its gradient.

    Args:
        correction: the corrections that apply.
        moments: moments of the density.
        points: positions in Å.

    Returns:
        Slab: 4πA D_z z/Ω. Molecule: αAq/L + 2πA/(3Ω) (2 D·r - q r² - M). In V; the field in V/Å.
    """
    charge, dipole, second_moment = moments.charge, moments.dipole, moments.second_moment
    slab_strength = (
        (4.0 * math.pi * COULOMB_CONSTANT) * correction.slab * dipole[2] / correction.volume
    )
    molecule_strength = (
        (2.0 * math.pi / 3.0 * COULOMB_CONSTANT) * correction.molecule / correction.volume
    )
    monopole = (
        (CUBIC_MADELUNG_CONSTANT * COULOMB_CONSTANT)
        * correction.molecule
        * charge
        / correction.box_length
    )
    squared = jnp.sum(points * points, axis=-1)
    potential = (
        slab_strength * points[:, 2]
        + monopole
        + molecule_strength
        * (2.0 * jnp.sum(points * dipole, axis=-1) - charge * squared - second_moment)
    )
    field = 2.0 * molecule_strength * (dipole - charge * points)
    return potential, field.at[:, 2].add(slab_strength)
