"""MACE and ScaleShiftMACE: energies from the backbone alone."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.data.statistics import scale_and_shift
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import (
    OfHeads,
    energy_outputs,
    of_own_head,
    stacked_terms,
    unscaled_energies,
)
from mace_scf_jax.models.family import FamilySettings
from mace_scf_jax.models.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ScaleShiftSettings(FamilySettings):
    """Energy per atom = scale · interaction energy + shift."""

    scale: OfHeads = 1.0
    """Factor on the interaction energy."""
    shift: OfHeads = 0.0
    """Energy per atom in eV."""

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> ScaleShiftSettings:
        """Measure both on the training set."""
        found = []
        for name, catalogue, atomic_energies in training.by_head():
            scale, shift = scale_and_shift(
                catalogue, np.array(atomic_energies), training.elements, options.scaling
            )
            of_head = f" of the head {name}" if name else ""
            logger.info("Scale %g and shift %g of the interaction energy%s", scale, shift, of_head)
            found.append((scale, shift))
        return cls(*zip(*found, strict=True)) if training.heads else cls(*found[0])


class MACE(nn.Module):
    """Energy = isolated atoms + nuclear repulsion + readout of every layer.

    Attributes:
        settings: sizes, choices and constants.
    """

    settings: ModelSettings

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies of a batch in eV: energy, node_energy, contributions."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        isolated = unscaled_energies(self.settings, graph, backbone)
        terms = stacked_terms(isolated, backbone.pair_energy, *backbone.layer_energies)
        return energy_outputs(graph, terms)


class ScaleShiftMACE(nn.Module):
    """Energy = isolated atoms + scale · (nuclear repulsion + readouts) + shift, per atom.

    Attributes:
        settings: sizes, choices and constants.
    """

    settings: ModelSettings[ScaleShiftSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies of a batch in eV: energy, node_energy, contributions."""
        backbone = self.settings.backbone.build(name="backbone")(graph)
        isolated = unscaled_energies(self.settings, graph, backbone)
        interaction = backbone.pair_energy + jnp.sum(backbone.layer_energies, axis=0)
        own = self.settings.own
        scaled = of_own_head(graph, own.scale) * interaction + of_own_head(graph, own.shift)
        return energy_outputs(graph, stacked_terms(isolated, scaled))
