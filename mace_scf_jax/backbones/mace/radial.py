"""Radial functions of the edge length: bases, cutoff, distance transforms, radial network."""

from __future__ import annotations

import math

import ase.data
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbones.mace.choices import (
    RADIAL_BASES,
    RadialBasis,
)
from mace_scf_jax.layers.drawn import unit_normal
from mace_scf_jax.layers.readout import activation


def polynomial_cutoff(
    lengths: Float[Array, "..."], cutoff: float | Float[Array, "..."], exponent: int
) -> Float[Array, "..."]:
    """Smooth envelope, 1 at zero and 0 from the cutoff on, with two continuous derivatives.

    Args:
        lengths: distances in Å.
        cutoff: cutoff radius in Å.
        exponent: the exponent p.

    Source:
        Gasteiger et al., DimeNet, ICLR 2020, eq. 8.
    """
    p = exponent
    x = lengths / cutoff
    envelope = (
        1.0
        - 0.5 * (p + 1) * (p + 2) * x**p
        + p * (p + 2) * x ** (p + 1)
        - 0.5 * p * (p + 1) * x ** (p + 2)
    )
    return jnp.where(x < 1.0, envelope, jnp.zeros((), lengths.dtype))


def bessel_basis(
    lengths: Float[Array, "edges"], cutoff: float, size: int
) -> Float[Array, "edges basis"]:
    """√(2/r_c) sin(n π r/r_c)/r for n = 1 … size (DimeNet, eq. 7); r in Å."""
    frequencies = jnp.asarray(math.pi / cutoff * np.arange(1, size + 1), lengths.dtype)
    r = lengths[:, None]
    return math.sqrt(2.0 / cutoff) * jnp.sin(frequencies * r) / r


def gaussian_basis(
    lengths: Float[Array, "edges"], cutoff: float, size: int
) -> Float[Array, "edges basis"]:
    """Gaussians centred on ``size`` equidistant points of [0, r_c], as wide as their distance."""
    centres = jnp.asarray(np.linspace(0.0, cutoff, size), lengths.dtype)
    width = cutoff / (size - 1)
    return jnp.exp(-0.5 * ((lengths[:, None] - centres) / width) ** 2)


def chebyshev_basis(
    lengths: Float[Array, "edges"], cutoff: float, size: int
) -> Float[Array, "edges basis"]:
    """Chebyshev polynomials T_1 … T_size of the length in Å, unscaled as in the reference."""
    del cutoff
    polynomials = [jnp.ones_like(lengths), lengths]
    while len(polynomials) <= size:
        polynomials.append(2.0 * lengths * polynomials[-1] - polynomials[-2])
    return jnp.stack(polynomials[1 : size + 1], axis=-1)


for basis in (
    RadialBasis("bessel", bessel_basis),
    RadialBasis("gaussian", gaussian_basis, smallest_size=2),
    RadialBasis("chebyshev", chebyshev_basis),
):
    RADIAL_BASES.add(basis)


def _covalent_radii(elements: tuple[int, ...], species: Int[Array, "edges"], dtype) -> Array:
    """Covalent radius of each atom in Å."""
    return jnp.asarray(ase.data.covalent_radii[list(elements)], dtype)[species]


def agnesi_transform(
    lengths: Float[Array, "edges"], bond_length: Float[Array, "edges"]
) -> Float[Array, "edges"]:
    """Agnesi transform of the distance with its default constants.

    Args:
        lengths: distances in Å.
        bond_length: sum of the two covalent radii in Å.

    Source:
        Witt et al., ACEpotentials.jl, J. Chem. Phys. 159, 164101 (2023).
    """
    q, p, a = 0.9183, 4.5791, 1.0805
    x = lengths / (0.5 * bond_length)
    return 1.0 / (1.0 + a * x**q / (1.0 + x ** (q - p)))


def soft_transform(
    lengths: Float[Array, "edges"], bond_length: Float[Array, "edges"]
) -> Float[Array, "edges"]:
    """Distance that flattens out below three quarters of the bond length.

    Args:
        lengths: distances in Å.
        bond_length: sum of the two covalent radii in Å.
    """
    lower, upper = 0.75 * bond_length, (4.0 / 3.0) * bond_length
    steepness = 4.0 / (upper - lower)
    switch = 0.5 * (1.0 + jnp.tanh(steepness * (lengths - 0.5 * (lower + upper))))
    return lower + (lengths - lower) * switch


def radial_embedding(
    lengths: Float[Array, "edges"],
    sender_species: Int[Array, "edges"],
    receiver_species: Int[Array, "edges"],
    *,
    elements: tuple[int, ...],
    radial_type: str,
    distance_transform: str,
    cutoff: float,
    size: int,
    cutoff_exponent: int,
) -> tuple[Float[Array, "edges basis"], Float[Array, "edges"]]:
    """Radial basis of the (transformed) length, and the cutoff envelope of the true length.

    Args:
        lengths: distances in Å.
        sender_species: element index of the sender.
        receiver_species: element index of the receiver.
        elements: atomic numbers of the model.
        radial_type: a name in `RADIAL_BASES`.
        distance_transform: None, Agnesi or Soft.
        cutoff: r_max in Å.
        size: number of basis functions.
        cutoff_exponent: exponent of the polynomial envelope.
    """
    envelope = polynomial_cutoff(lengths, cutoff, cutoff_exponent)
    transformed = lengths
    if distance_transform != "None":
        bond_length = _covalent_radii(elements, sender_species, lengths.dtype) + _covalent_radii(
            elements, receiver_species, lengths.dtype
        )
        transform = {"Agnesi": agnesi_transform, "Soft": soft_transform}[distance_transform]
        transformed = transform(lengths, bond_length)
    return RADIAL_BASES[radial_type].functions(transformed, cutoff, size), envelope


class RadialNetwork(nn.Module):
    """Bias-free multilayer perceptron with the normalisation of e3nn's FullyConnectedNet.

    Attributes:
        widths: width of every layer after the input; the last layer is linear.
        nonlinearity: activation of the hidden layers.
    """

    widths: tuple[int, ...]
    nonlinearity: str = "silu"

    @nn.compact
    def __call__(self, x: Float[Array, "edges inputs"]) -> Float[Array, "edges outputs"]:
        """Apply the network to each row."""
        act = activation(self.nonlinearity)
        for index, width in enumerate(self.widths):
            weight = self.param(f"layer_{index}", unit_normal, (x.shape[-1], width))
            x = x @ (weight / math.sqrt(x.shape[-1]))
            if index + 1 < len(self.widths):
                x = act(x)
        return x
