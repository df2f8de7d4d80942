"""What field features are divided by: given, or measured on the training set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.electrostatics import FieldFeatureSettings
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.field_feature_options import AUTO, AVERAGE
from mace_scf_jax.options import ConfigurationError

logger = logging.getLogger(__name__)

SMALLEST_NORM = 1e-8
"""Measured norms and scales below this would blow up what they divide or be of no use."""

IN_WORDS = {"atomic_multipoles": "multipoles", "fermi_level": "a Fermi level"}
"""What a structure has that has a label."""


def expanded_norms(norms: tuple[float, ...], max_l: int) -> np.ndarray:
    """Return what every component of the features is divided by, [features].

    Args:
        norms: by degree, then width.
        max_l: highest degree.
    """
    by_degree = np.array(norms).reshape(max_l + 1, -1)
    return np.concatenate(
        [np.repeat(by_degree[degree], 2 * degree + 1) for degree in range(max_l + 1)]
    )


def check_norms(norms: tuple[float, ...], receivers: FieldFeatureSettings) -> None:
    """Refuse norms that are not one for each degree and width of the features.

    Raises:
        ValueError: says how many there are.
    """
    expected = len(receivers.widths) * (receivers.max_l + 1)
    if len(norms) != expected:
        raise ValueError(
            f"field_feature_norms: expected {expected} numbers, one for each degree up to "
            f"{receivers.max_l} and each of {len(receivers.widths)} widths, found {len(norms)}"
        )


def given_or_measured_norms(
    options: Any,
    training: TrainingSet,
    features_of: Callable[[Graph], Array],
    *,
    labels: tuple[str, ...],
) -> tuple[float, ...]:
    """Return what field features are divided by, by degree and width.

    Args:
        options: of the run.
        features_of: field features [atoms, features] of a batch with labels.
        labels: names of the labels of a structure that it reads.

    Raises:
        ConfigurationError: there are too few or too many, or nothing to measure them on.
    """
    electrostatics = training.electrostatics
    assert electrostatics is not None  # the family has charges
    receivers = electrostatics.receivers
    expected = len(receivers.widths) * (receivers.max_l + 1)
    norms = options.field_feature_norms
    if norms == AUTO:
        weights = training.catalogue.weights
        can_measure = np.all([weights[name] > 0.0 for name in labels], axis=0)
        norms = AVERAGE if can_measure.any() else None
        if norms is None:
            needed = " and ".join(IN_WORDS[name] for name in labels)
            logger.info("Field feature norms: 1, because no structure has %s", needed)
    if norms is None:
        return (1.0,) * expected
    if norms == AVERAGE:
        norms = _measured(training, features_of, receivers, labels)
        logger.info(
            "Field feature norms (by order, then width): %s", ", ".join(f"{x:.6g}" for x in norms)
        )
    if len(norms) != expected:
        raise ConfigurationError(
            f"option 'field_feature_norms': expected {expected} numbers, one for each order up to "
            f"{receivers.max_l} and each of {len(receivers.widths)} widths, found {len(norms)}"
        )
    return tuple(norms)


def _measured(
    training: TrainingSet,
    features_of: Callable[[Graph], Array],
    receivers: FieldFeatureSettings,
    labels: tuple[str, ...],
) -> tuple[float, ...]:
    """Root mean square over all atoms of structures with labels, and over the components of each
    degree."""

    @jax.jit
    def sums(graph: Graph) -> tuple[Array, Array]:
        labelled = jnp.all(jnp.stack([graph.weights[name] > 0.0 for name in labels]), axis=0)
        labelled = labelled[graph.atom_graph] & graph.atom_mask
        squares = jnp.sum(jnp.where(labelled[:, None], features_of(graph) ** 2, 0.0), axis=0)
        return squares, jnp.sum(labelled.astype(jnp.int32))

    squares, atoms = np.zeros(receivers.num_features), 0
    for graph in training.batches():
        batch_squares, batch_atoms = sums(jax.tree.map(jnp.asarray, graph))
        squares, atoms = squares + np.asarray(batch_squares, np.float64), atoms + int(batch_atoms)
    if not atoms:
        needed = " and ".join(labels)
        raise ConfigurationError(
            f"option 'field_feature_norms': average needs a training configuration with {needed}, "
            "found none; give a list of numbers, or None"
        )
    norms: list[float] = []
    start, widths = 0, len(receivers.widths)
    for degree in range(receivers.max_l + 1):
        size = widths * (2 * degree + 1)
        block = squares[start : start + size].reshape(widths, 2 * degree + 1)
        norms += np.maximum(np.sqrt(np.mean(block / atoms, axis=1)), SMALLEST_NORM).tolist()
        start += size
    return tuple(norms)
