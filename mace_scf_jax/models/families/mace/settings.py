"""Scale and shift of an interaction energy."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mace_scf_jax.data.statistics import scale_and_shift
from mace_scf_jax.models.family import FamilySettings, TrainingSet
from mace_scf_jax.options import OptionGroup

logger = logging.getLogger(__name__)


class ScaleShiftOptions(OptionGroup):
    """Scale of the energy (ScaleShiftMACE)"""

    decide_weights = False

    scaling: Literal["rms_forces_scaling", "std_scaling", "no_scaling"] = Field(
        default="rms_forces_scaling",
        description="scale of the interaction energy (ScaleShiftMACE only)",
    )


@dataclasses.dataclass(frozen=True)
class ScaleShiftSettings(FamilySettings):
    """Energy per atom = scale · interaction energy + shift."""

    scale: float = 1.0
    """Factor on the interaction energy."""
    shift: float = 0.0
    """Energy per atom in eV."""

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> ScaleShiftSettings:
        """Measure both on the training set."""
        scale, shift = scale_and_shift(
            training.catalogue,
            np.array(training.atomic_energies),
            training.elements,
            options.scaling,
        )
        logger.info("Scale %g and shift %g of the interaction energy", scale, shift)
        return cls(scale, shift)
