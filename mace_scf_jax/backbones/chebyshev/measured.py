"""What a descriptor potential takes from options and training set."""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.networks import Architecture
from mace_scf_jax.backbones.chebyshev.normalisation import (
    FeatureStatistics,
    Moments,
    energy_scaling_and_shift,
)
from mace_scf_jax.backbones.chebyshev.options import WHOLE
from mace_scf_jax.backbones.chebyshev.stored import descriptors_of
from mace_scf_jax.data.statistics import interaction_energies
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.options import ConfigurationError

logger = logging.getLogger(__name__)


def architectures_of(
    arch: dict[int | str, Architecture], elements: tuple[int, ...]
) -> tuple[Architecture, ...]:
    """Return the hidden layers of each element of the data.

    Raises:
        ConfigurationError: layers are given for other elements.
    """
    if WHOLE in arch:
        return (arch[WHOLE],) * len(elements)
    if set(arch) != set(elements):
        expected, found = (
            ", ".join(chemical_symbols[z] for z in sorted(which)) for which in (elements, arch)
        )
        raise ConfigurationError(
            f"option 'arch': expected layers for the elements of the data, {expected}, found "
            f"{found}"
        )
    return tuple(arch[element] for element in elements)


def energy_constants(options: Any, training: TrainingSet) -> tuple[float, float]:
    """Return S in 1/eV and e_0 in eV, each given, or measured, or without effect."""
    scaling, shift = 1.0, 0.0
    if options.normalize_energy:
        catalogue = training.catalogue
        energies = interaction_energies(
            catalogue, np.array(training.atomic_energies), training.elements
        )
        scaling, shift = energy_scaling_and_shift(energies[catalogue.present["energy"]])
    scaling = scaling if options.E_scaling is None else options.E_scaling
    shift = shift if options.E_shift is None else options.E_shift
    logger.info("Energies per atom: network / (%g/eV) + (%g eV)", scaling, shift)
    return scaling, shift


def feature_statistics(
    options: Any, descriptor: Descriptor, training: TrainingSet
) -> FeatureStatistics | None:
    """Return statistics of the features: given, or of all atoms, or of those of each element."""
    if not options.normalize_features:
        return None
    if options.feature_stats is not None:
        given = options.feature_stats
        return FeatureStatistics((given.mean,), (given.std,))
    per_element = options.normalize_features == "per_element"
    rows = len(training.elements) if per_element else 1
    moments = Moments(rows, descriptor.size)
    compute = jax.jit(lambda graph: descriptors_of(graph, descriptor, training.elements))
    for graph in training.batches():
        real = np.asarray(graph.atom_mask)
        row = np.asarray(graph.species) if per_element else np.zeros(len(real), int)
        moments.add(np.asarray(compute(graph), np.float64)[real], row[real])
    return moments.statistics()
