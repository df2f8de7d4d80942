"""The training options of the family LocalSplitCharges, and what they may choose from."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.options.values import Literally, Number


@dataclasses.dataclass(frozen=True)
class TransferBlock:
    """What distinguishes the transfer blocks."""

    radial_widths: tuple[int, ...]
    """Hidden widths of the radial network."""
    oxidation_dependent: bool
    """Multiply the features of an atom by its embedded formal charge first (`OxidationStateGate`);
    the output weights are then shared by all degrees."""


OXIDATION_DEPENDENT_BLOCK = "OxidationDependentSymmetricPredictionSourceBlock"
NO_FIELD_BLOCK = "NoFieldSymmetricPredictionSourceBlock"
TRANSFER_BLOCKS = {
    OXIDATION_DEPENDENT_BLOCK: TransferBlock((32, 32, 32), oxidation_dependent=True),
    NO_FIELD_BLOCK: TransferBlock((64, 64, 64), oxidation_dependent=False),
}
"""Values of the option ``static_bond_transfer_block``."""

NO_MIXER = "NoOxidationStateMixer"
SUM_MIXER = "SumOxidationStateMixer"
PRODUCT_MIXER = "ProductOxidationStateMixer"
OXIDATION_STATE_MIXERS = (SUM_MIXER, PRODUCT_MIXER, NO_MIXER)
"""Values of the option ``oxidation_state_mixer``."""


class SplitChargeOptions(OptionGroup):
    """Charge transfer (LocalSplitCharges)"""

    decide_weights = False

    static_bond_transfer_block: Annotated[str, OneOf(TRANSFER_BLOCKS)] = Field(
        default=OXIDATION_DEPENDENT_BLOCK,
        description="charge transfer between neighbours, with or without knowledge of the formal "
        "charges (LocalSplitCharges)",
    )
    oxidation_state_mixer: Annotated[str, OneOf(OXIDATION_STATE_MIXERS)] = Field(
        default=SUM_MIXER,
        description="how formal charges enter the initial features (LocalSplitCharges)",
    )
    oxidation_state_range: Annotated[tuple[Number, Number], Literally] = Field(
        default=(-6.0, 6.0),
        description="lowest and highest formal charge in e that mixer and transfer block can tell "
        "apart",
    )
    compute_polarizability: bool = Field(
        default=True, description="predict polarizabilities (LocalSplitCharges)"
    )
