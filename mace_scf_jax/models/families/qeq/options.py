"""The training options of the family MACEQEq."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mace_scf_jax.options import OptionGroup


class ChargeEquilibrationOptions(OptionGroup):
    """Charge equilibration (MACEQEq)"""

    decide_weights = False

    qeq_charges: Literal["autograd"] = Field(
        default="autograd", description="how charges are solved for; there is no other choice"
    )
    read_enegs: bool = Field(
        default=False,
        description="add the property enegs of each atom to its learned electronegativity",
    )
    read_hardness: bool = Field(
        default=False,
        description="start from the property hardness of each atom instead of default_hardness",
    )
    train_hardness: bool = Field(default=False, description="add a learned hardness")
