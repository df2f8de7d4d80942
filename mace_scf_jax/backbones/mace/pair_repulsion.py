"""Ziegler–Biersack–Littmark screened nuclear repulsion."""

from __future__ import annotations

import ase.data
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbones.mace.radial import polynomial_cutoff

_SCREENING = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
_LENGTH_PREFACTOR = 0.4543 * 0.529
"""Å; the universal screening length with the Bohr radius rounded as in the reference."""
_LENGTH_EXPONENT = 0.3
_COULOMB_CONSTANT = 14.3996
"""eV Å, rounded as in the reference."""


def pair_repulsion(
    lengths: Float[Array, "edges"],
    sender_species: Int[Array, "edges"],
    receiver_species: Int[Array, "edges"],
    *,
    elements: tuple[int, ...],
    cutoff_exponent: int,
) -> Float[Array, "edges"]:
    """Half the repulsion energy of each directed edge, cut off at the sum of covalent radii.

    Args:
        lengths: distances in Å.
        sender_species: element index of the sender.
        receiver_species: element index of the receiver.
        elements: atomic numbers of the model.
        cutoff_exponent: exponent of the polynomial envelope.

    Returns:
        Energy per directed edge in eV; the sum over both directions is the pair energy.

    Source:
        Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids (1985).
    """
    dtype = lengths.dtype
    numbers = jnp.asarray(np.asarray(elements, dtype=np.float64), dtype)
    radii = jnp.asarray(ase.data.covalent_radii[list(elements)], dtype)
    z_sender, z_receiver = numbers[sender_species], numbers[receiver_species]
    screening_length = _LENGTH_PREFACTOR / (
        z_sender**_LENGTH_EXPONENT + z_receiver**_LENGTH_EXPONENT
    )
    x = lengths / screening_length
    screening = sum(weight * jnp.exp(-decay * x) for weight, decay in _SCREENING)
    envelope = polynomial_cutoff(
        lengths, radii[sender_species] + radii[receiver_species], cutoff_exponent
    )
    return 0.5 * _COULOMB_CONSTANT * z_sender * z_receiver / lengths * screening * envelope
