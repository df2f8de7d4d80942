"""Settings of PolarMACE, and the parameters that its training starts with."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.electrostatics import (
    FieldFeatureSettings,
    external_field_features,
    prepare_response,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.families.mace.model import ScaleShiftSettings
from mace_scf_jax.models.family import Parameters
from mace_scf_jax.models.field_feature_norms import check_norms, given_or_measured_norms
from mace_scf_jax.models.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolarMACESettings(ScaleShiftSettings):
    """Scale and shift of the readouts, and how multipoles answer the potential.

    Raises:
        ValueError: a number is out of range.
    """

    field_feature_norms: tuple[float, ...]
    """What field features are divided by: one number for each degree and width, widths fastest."""
    num_recursion_steps: int = 2
    """How often the multipoles are changed; each step has its own weights."""
    include_field_energy: bool = True
    """Whether an energy is read from the multipoles and their potential."""

    def __post_init__(self) -> None:
        norms = tuple(float(value) for value in self.field_feature_norms)
        object.__setattr__(self, "field_feature_norms", norms)
        if not all(math.isfinite(value) and value > 0.0 for value in norms):
            raise ValueError(f"field_feature_norms: expected positive numbers, found {norms!r}")
        if self.num_recursion_steps < 1:
            raise ValueError(
                f"num_recursion_steps: expected at least 1, found {self.num_recursion_steps!r}"
            )

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """The multiplicity."""
        return ("total_spin",)

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> PolarMACESettings:
        """Return what options and training set describe.

        Raises:
            ConfigurationError: sizes do not fit, or the training set lacks what is to be measured.
        """
        electrostatics = training.electrostatics
        assert electrostatics is not None  # the family has charges

        def features_of(graph: Graph) -> Array:
            response = prepare_response(graph, settings=electrostatics)
            features = response.apply(graph.labels["atomic_multipoles"])
            external = centred_field_features(graph, features=electrostatics.receivers)
            return 0.5 * (features + external)  # of one of two spins

        scaled = ScaleShiftSettings.from_options(options, training)
        return cls(
            scale=scaled.scale,
            shift=scaled.shift,
            field_feature_norms=given_or_measured_norms(
                options, training, features_of, labels=("atomic_multipoles",)
            ),
            num_recursion_steps=options.num_recursion_steps,
            include_field_energy=options.include_local_electron_energy,
        )

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse electrostatics without features, or with others than there are norms for."""
        if settings.density.features is None:
            raise ValueError("model PolarMACE needs electrostatic settings with field features")
        check_norms(self.field_feature_norms, settings.density.features)

    def check_structure(self, configuration: Configuration) -> None:
        """Refuse a multiplicity below 1."""
        multiplicity = float(configuration.values["total_spin"])
        if not (math.isfinite(multiplicity) and multiplicity >= 1.0):
            raise DataError(
                f"{configuration.location}: total_spin: expected a multiplicity 2S + 1 of at least "
                f"1, found {multiplicity:g}"
            )


def centred_field_features(graph: Graph, *, features: FieldFeatureSettings) -> Array:
    """Field features of the external field, its potential being 0 at the mean of the positions.

    Args:
        features: degree and widths of the receivers.

    Returns:
        [atoms, features] in V, before normalisation.
    """
    positions, field = jnp.asarray(graph.positions), jnp.asarray(graph.external_field)
    atoms = jnp.maximum(graph.sum_atoms(jnp.ones_like(positions[:, 0])), 1.0)
    centre = graph.sum_atoms(positions) / atoms[:, None]
    return external_field_features(
        positions - centre[graph.atom_graph],
        jnp.zeros_like(field[:, 0])[graph.atom_graph],
        field[graph.atom_graph],
        features=features,
    )


def first_parameters(parameters: Parameters, options: Any) -> Parameters:
    """Initial parameters with small multipoles and changes, and the same Fukui weight everywhere.

    Random weights could add up to nearly 0, and what they give would be huge.

    Args:
        parameters: random ones.
        options: ``fixedpoint_initial_charge_head_scale`` multiplies the last layers that give
            multipoles and Fukui weights.
    """
    scale = options.fixedpoint_initial_charge_head_scale

    def small(layer: Parameters, weights: int) -> Parameters:
        """The layer scaled; the last ``weights`` of its scalars are Fukui weights around 1."""
        scaled = jax.tree.map(lambda values: scale * values, layer)
        return {**scaled, "bias": jnp.asarray(scaled["bias"]).at[-weights:].set(1.0)}

    changed = dict(parameters)
    for name, layers in parameters.items():
        if name.startswith("spin_multipole_readout_"):
            changed[name] = jax.tree.map(lambda values: scale * values, layers)
        elif name == "fukui_readout":
            changed[name] = {**layers, "linear": small(layers["linear"], 2)}
        elif name.startswith("spin_update_"):
            readout = layers["readout"]
            readout = {**readout, "linear": small(readout["linear"], 2)}
            changed[name] = {**layers, "readout": readout}
    logger.info("Initial weights of the charge heads are multiplied by %g", scale)
    return changed
