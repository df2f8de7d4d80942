"""What a fixed-point model takes from the training set: measured settings, first parameters."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.electrostatics import external_field_features, prepare_response
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.families.fixed_point.choices import SCALED_UPDATES
from mace_scf_jax.models.family import Parameters
from mace_scf_jax.models.field_feature_norms import SMALLEST_NORM, given_or_measured_norms
from mace_scf_jax.models.field_feature_options import AVERAGE
from mace_scf_jax.options import ConfigurationError

logger = logging.getLogger(__name__)


def fermi_level_offset(options: Any, training: TrainingSet) -> float:
    """Return the Fermi level in eV that causes no field features, given or the mean of the set.

    Raises:
        ConfigurationError: a key for Fermi levels is given, and no structure has any.
    """
    catalogue = training.catalogue
    if options.fermi_level_offset is not None:
        logger.info("Using manually specified Fermi level offset %g eV", options.fermi_level_offset)
        return options.fermi_level_offset
    levels = catalogue.fermi_level[catalogue.weights["fermi_level"] > 0.0]
    if not len(levels) and options.keys.key_of("fermi_level") is not None:
        raise ConfigurationError(
            "option 'fermi_level_offset': no training configuration has a fermi_level to take the "
            "mean of; give the offset, or remove the key from 'heads'"
        )
    offset = float(np.mean(levels)) if len(levels) else 0.0
    logger.info("Computed Fermi level offset %g eV from %d structures", offset, len(levels))
    return offset


def field_feature_norms(options: Any, training: TrainingSet, *, offset: float) -> tuple[float, ...]:
    """Return what field features are divided by, given or measured, by degree and width.

    Measured ones are of reference multipoles, field and Fermi level together.

    Args:
        offset: Fermi level in eV that causes no field features.

    Raises:
        ConfigurationError: there are too few or too many, or nothing to measure them on.
    """
    electrostatics = training.electrostatics
    assert electrostatics is not None  # the family has charges

    def features_of(graph: Graph) -> Array:
        response = prepare_response(graph, settings=electrostatics)
        return response.apply(graph.labels["atomic_multipoles"]) + external_field_features(
            graph.positions,
            graph.fermi_level[graph.atom_graph] - offset,
            graph.external_field[graph.atom_graph],
            features=electrostatics.receivers,
        )

    return given_or_measured_norms(
        options, training, features_of, labels=("atomic_multipoles", "fermi_level")
    )


def atom_density_scaling(options: Any, training: TrainingSet) -> tuple[float, ...] | None:
    """Return the scale of the multipoles of each element; None where the model does not use any.

    Raises:
        ConfigurationError: numbers are given for other elements than those of the training set.
    """
    elements = training.elements
    scaling = options.atom_density_scaling
    if isinstance(scaling, dict) and set(scaling) != set(elements):
        symbols = (", ".join(chemical_symbols[z] for z in sorted(s)) for s in (elements, scaling))
        raise ConfigurationError(
            "option 'atom_density_scaling': expected a number for each of the elements "
            f"{next(symbols)}, found {next(symbols)}"
        )
    is_scaled = options.fixedpoint_update_config["type"] in SCALED_UPDATES
    if not (options.use_linear_local_charges or is_scaled):
        return None
    if scaling is None:
        return (1.0,) * len(elements)
    if scaling == AVERAGE:
        scaling = measured_density_scaling(training.batches(), elements)
    logger.info(
        "Atom density scaling: %s",
        ", ".join(f"{chemical_symbols[z]} {scaling[z]:.6g}" for z in elements),
    )
    return tuple(scaling[element] for element in elements)


def measured_density_scaling(
    batches: Iterable[Graph], elements: tuple[int, ...]
) -> dict[int, float]:
    """Root mean square of the reference multipoles of each element, over all components.

    Args:
        batches: with labels; structures without reference multipoles do not count.
        elements: atomic numbers, in the order of the species of the batches.

    Returns:
        The scale by atomic number; 1 for elements without reference.
    """
    squares, counts = np.zeros(len(elements)), np.zeros(len(elements), dtype=int)
    for graph in batches:
        labelled = np.asarray(graph.weights["atomic_multipoles"])[graph.atom_graph] > 0.0
        labelled &= np.asarray(graph.atom_mask)
        species = np.asarray(graph.species)[labelled]
        multipoles = np.asarray(graph.labels["atomic_multipoles"], np.float64)[labelled]
        np.add.at(squares, species, np.mean(multipoles**2, axis=1))
        np.add.at(counts, species, 1)
    scaling = {}
    for element, square, count in zip(elements, squares, counts, strict=True):
        symbol = chemical_symbols[element]
        scaling[element] = float(np.sqrt(square / count)) if count else 1.0
        if not count:
            logger.warning("Atom density scaling: no reference multipoles of %s, using 1", symbol)
        elif scaling[element] < SMALLEST_NORM:
            logger.warning("Atom density scaling: the multipoles of %s vanish", symbol)
            scaling[element] = SMALLEST_NORM
    return scaling


def scale_charge_heads(parameters: Parameters, options: Any) -> Parameters:
    """Initial parameters with small local multipoles and a small answer to the potential.

    So the first self-consistent cycles are far from diverging.

    Args:
        parameters: random ones.
        options: ``fixedpoint_initial_charge_head_scale`` multiplies the last layers that give
            multipoles; 1 changes nothing.
    """
    scale = options.fixedpoint_initial_charge_head_scale
    if scale == 1.0:
        return parameters

    def scaled(layer: Any) -> Any:
        return jax.tree.map(lambda weights: scale * weights, layer)

    changed = dict(parameters)
    for name, layers in parameters.items():
        if name.startswith("multipole_readout_"):
            changed[name] = {**layers, "linear": scaled(layers["linear"])}
    update = parameters["density_update"]
    response = {**update["response"], "output": scaled(update["response"]["output"])}
    changed["density_update"] = {**update, "response": response}
    logger.info("Initial weights of the charge heads are multiplied by %g", scale)
    return changed
