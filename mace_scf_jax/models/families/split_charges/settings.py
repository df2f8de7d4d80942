"""Settings of split charges."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.models.families.split_charges.options import (
    NO_MIXER,
    OXIDATION_DEPENDENT_BLOCK,
    OXIDATION_STATE_MIXERS,
    SUM_MIXER,
    TRANSFER_BLOCKS,
)
from mace_scf_jax.models.formal_charges import (
    FORMAL_CHARGES_INPUT,
    FormalChargeSettings,
    formal_charges_of,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.registry import unknown_name


@dataclasses.dataclass(frozen=True)
class SplitChargeSettings(FormalChargeSettings):
    """How formal charges enter the features, and how charge is split between neighbours.

    Raises:
        ValueError: a name is not one of the choices, or a range is empty.
    """

    transfer_block: str = OXIDATION_DEPENDENT_BLOCK
    """A name in `TRANSFER_BLOCKS`."""
    transfer_range: tuple[float, float] = (-6.0, 6.0)
    """Lowest and highest formal charge (e) that the transfer block expands."""
    oxidation_state_mixer: str = SUM_MIXER
    """One of `OXIDATION_STATE_MIXERS`."""
    oxidation_state_range: tuple[float, float] = (-6.0, 6.0)
    """Lowest and highest formal charge (e) that the mixer expands."""
    polarizability: bool = False
    """Predict polarizabilities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer_block not in TRANSFER_BLOCKS:
            raise ValueError(unknown_name("transfer block", self.transfer_block, TRANSFER_BLOCKS))
        if self.oxidation_state_mixer not in OXIDATION_STATE_MIXERS:
            raise ValueError(
                unknown_name(
                    "oxidation state mixer", self.oxidation_state_mixer, OXIDATION_STATE_MIXERS
                )
            )
        for name in ("transfer_range", "oxidation_state_range"):
            bounds = tuple(float(bound) for bound in getattr(self, name))
            if len(bounds) != 2 or not -math.inf < bounds[0] < bounds[1] < math.inf:
                raise ValueError(
                    f"{name}: expected the lowest and the highest formal charge, found {bounds}"
                )
            object.__setattr__(self, name, bounds)

    @property
    def charge_range(self) -> tuple[float, float]:
        """Formal charges that everything which expands them can take."""
        ranges = [(-math.inf, math.inf)]
        if TRANSFER_BLOCKS[self.transfer_block].oxidation_dependent:
            ranges.append(self.transfer_range)
        if self.oxidation_state_mixer != NO_MIXER:
            ranges.append(self.oxidation_state_range)
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The polarizability, if it is read out."""
        return ("polarizability",) if self.polarizability else ()

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> SplitChargeSettings:
        """Return what the options describe.

        Raises:
            ConfigurationError: formal charges are missing for an element, or given for others.
        """
        return cls(
            formal_charges=formal_charges_of(options, training.elements),
            transfer_block=options.static_bond_transfer_block,
            transfer_range=options.oxidation_state_range,
            oxidation_state_mixer=options.oxidation_state_mixer,
            oxidation_state_range=options.oxidation_state_range,
            polarizability=options.compute_polarizability,
        )

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse formal charges that are not of the elements, or outside the expanded range."""
        super().check_model(settings)
        low, high = self.charge_range
        for element, charge in zip(settings.elements, self.formal_charges or (), strict=False):
            if not low <= charge <= high:
                raise ValueError(
                    f"formal_charges: found {charge:g} e for element {element}, expected a charge "
                    f"in the range of oxidation states, {low:g} to {high:g} e"
                )

    def check_structure(self, configuration: Configuration) -> None:
        """Refuse formal charges of the data outside the expanded range."""
        if self.formal_charges is not None:
            return
        low, high = self.charge_range
        charges = configuration.values[FORMAL_CHARGES_INPUT]
        if np.any((charges < low) | (charges > high)):
            raise DataError(
                f"{configuration.location}: found formal charges from {charges.min():g} to "
                f"{charges.max():g} e, expected charges in the range of oxidation states, "
                f"{low:g} to {high:g} e"
            )
