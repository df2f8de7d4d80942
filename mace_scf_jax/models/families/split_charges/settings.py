"""Settings of split charges."""

from __future__ import annotations

import dataclasses
import math

from mace_scf_jax.hints import unknown_name
from mace_scf_jax.models.families.split_charges.bond_transfer import (
    OXIDATION_DEPENDENT_BLOCK,
    TRANSFER_BLOCKS,
)
from mace_scf_jax.models.families.split_charges.oxidation_states import (
    NO_MIXER,
    OXIDATION_STATE_MIXERS,
    SUM_MIXER,
)


@dataclasses.dataclass(frozen=True)
class SplitChargeSettings:
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
