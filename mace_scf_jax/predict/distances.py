"""Words about atoms closer to each other than a model is meant for, though it gives numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mace_scf_jax.data.structure import Structure
from mace_scf_jax.models import ModelSettings

SHORTEST = "shortest_distance"
"""Name of the output that tells it."""


class ShortDistanceWarning(UserWarning):
    """Atoms of a structure are closer to each other than the model is meant for."""


class DistanceWatch:
    """Looks at one geometry after another, and warns once of atoms that are too close.

    Args:
        settings: of the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._least = settings.backbone.least_distance
        self._is_silent = self._least <= 0.0

    def look(self, prediction: Mapping[str, Any], of: Any = "") -> None:
        """Look at the shortest distance in what a model predicts.

        Args:
            of: the structure in words; empty where that is clear.
        """
        if self._is_silent or not prediction[SHORTEST] < self._least:
            return
        self._is_silent = True
        warnings.warn(
            f"{of}{': ' if of else ''}found atoms {float(prediction[SHORTEST]):.3f} Å apart, "
            f"closer than the {self._least:g} Å (min_cutoff) that the model is meant for (said "
            "once)",
            ShortDistanceWarning,
            stacklevel=3,
        )

    def look_at_all(
        self, predictions: Sequence[Mapping[str, Any]], structures: Sequence[Structure]
    ) -> None:
        """Look at what a model predicts for several structures."""
        for prediction, structure in zip(predictions, structures, strict=True):
            self.look(prediction, structure.configuration.location)
