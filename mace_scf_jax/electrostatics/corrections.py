"""Corrections that turn the fully periodic sum into that of a slab or of an isolated molecule.

Both depend on the density through its lowest moments alone: total charge q, dipole D and second
moment M = Σ Q_i r_i² + 2 d_i·r_i. Multipoles with l ≥ 2 do not enter: R_lm integrates every
polynomial of degree ≤ 2 to zero for l ≥ 3, and for l = 2 it has no trace and no dipole.

Sources: slab, Yeh and Berkowitz, J. Chem. Phys. 111, 3155 (1999); molecule, Makov and Payne,
Phys. Rev. B 51, 4014 (1995), without the constant of the Gaussians' own spread.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.electrostatics.boundary import OPEN, SLAB
from mace_scf_jax.electrostatics.moments import Moments
from mace_scf_jax.units import COULOMB_CONSTANT

CUBIC_MADELUNG_CONSTANT = 2.837297
"""α of a simple cubic lattice of point charges in a neutralising background."""


def slab_energy(moments: Moments, volume: Float[Array, ""]) -> Float[Array, ""]:
    """Energy that removes the interaction between the images of a slab along z.

    Args:
        moments: moments of the density.
        volume: cell volume Ω in Å³.

    Returns:
        2πA D_z²/Ω in eV.
    """
    return (2.0 * math.pi * COULOMB_CONSTANT) * moments.dipole[2] ** 2 / volume


def molecule_energy(
    moments: Moments, volume: Float[Array, ""], *, exponent: float = 1.0 / 3.0
) -> Float[Array, ""]:
    """Energy that removes the interaction between the images of a molecule in a cubic box.

    Args:
        moments: moments of the density.
        volume: cell volume Ω in Å³.
        exponent: x in the box length L = Ω^x.

    Returns:
        ½ α A q²/L + 2πA/(3Ω) (|D|² - q M) in eV.
    """
    charge, dipole = moments.charge, moments.dipole
    monopole = (0.5 * CUBIC_MADELUNG_CONSTANT) * charge**2 / volume**exponent
    higher = jnp.sum(dipole * dipole) - charge * moments.second_moment
    return COULOMB_CONSTANT * (monopole + (2.0 * math.pi / 3.0) * higher / volume)


def has_pattern(pbc: Bool[Array, "3"], pattern: tuple[bool, bool, bool]) -> Bool[Array, ""]:
    """Whether pbc flags equal a pattern such as `boundary.SLAB`."""
    return jnp.all(pbc == jnp.asarray(pattern))


def mixed_energy(
    moments: Moments,
    volume: Float[Array, ""],
    pbc: Bool[Array, "3"],
    *,
    exponent: float = 1.0 / 3.0,
) -> Float[Array, ""]:
    """Correction that fits the pbc flags: TTF slab, FFF molecule, none otherwise.

    Args:
        moments: moments of the density.
        volume: cell volume Ω in Å³.
        pbc: periodicity along x, y, z.
        exponent: x in the box length L = Ω^x of the molecule correction.

    Returns:
        Correction in eV.
    """
    slab = slab_energy(moments, volume)
    molecule = molecule_energy(moments, volume, exponent=exponent)
    return jnp.where(has_pattern(pbc, SLAB), slab, 0.0) + jnp.where(
        has_pattern(pbc, OPEN), molecule, 0.0
    )
