"""Energies from potentials of ænet as the formulas stand, pair by pair.

It is slow, and shares nothing with the models but neighbours and activations: a check of what was
imported.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.polynomial.chebyshev import chebvander

from mace_scf_jax.aenet.potential import ElementPotential
from mace_scf_jax.backbones import Descriptor
from mace_scf_jax.data.structure import Structure


def plain_energy(structure: Structure, potentials: Mapping[int, ElementPotential]) -> float:
    """Energy of a structure in eV.

    Args:
        structure: with edges that reach as far as the descriptor.
        potentials: by atomic number.
    """
    numbers = structure.configuration.atomic_numbers
    descriptor = next(iter(potentials.values())).descriptor
    features = plain_descriptors(structure, descriptor)
    return sum(
        float(np.sum(potentials[int(element)].energies(features[numbers == element])))
        for element in np.unique(numbers)
    )


def plain_descriptors(
    structure: Structure, descriptor: Descriptor
) -> Float[np.ndarray, "atoms features"]:
    """Features of every atom: sums over its neighbours, and over the pairs of its neighbours.

    Args:
        structure: with edges that reach as far as the descriptor.
    """
    configuration = structure.configuration
    positions = configuration.positions
    senders, receivers = structure.senders, structure.receivers
    vectors = positions[receivers] - positions[senders]
    vectors = vectors + structure.cell_shifts @ configuration.cell
    lengths = np.linalg.norm(vectors, axis=1)
    weights = descriptor.weights(configuration.atomic_numbers[senders].tolist())
    return np.array(
        [
            _of_atom(vectors[own], lengths[own], weights[own], descriptor)
            for own in (receivers == atom for atom in range(structure.num_atoms))
        ]
    )


def _of_atom(
    vectors: Float[np.ndarray, "neighbours 3"],
    lengths: Float[np.ndarray, "neighbours"],
    weights: Float[np.ndarray, "neighbours"],
    descriptor: Descriptor,
) -> Float[np.ndarray, "features"]:
    radial = chebvander(2.0 * lengths / descriptor.rad_cutoff - 1.0, descriptor.rad_order)
    directions = vectors / lengths[:, None]
    first, second = np.triu_indices(len(lengths), 1)
    cosines = np.sum(directions[first] * directions[second], axis=1)
    angular = chebvander(cosines, descriptor.ang_order)
    parts = []
    for kind in (np.ones_like(weights), weights)[: 1 + descriptor.is_weighted]:
        near = kind * _cutoff(lengths, descriptor.ang_cutoff)
        parts.append((kind * _cutoff(lengths, descriptor.rad_cutoff)) @ radial)
        parts.append((near[first] * near[second]) @ angular)
    return np.concatenate(parts)


def _cutoff(lengths: Float[np.ndarray, "n"], radius: float) -> Float[np.ndarray, "n"]:
    inside = 0.5 * (np.cos(np.pi * lengths / radius) + 1.0)
    return np.where(lengths < radius, inside, 0.0)
