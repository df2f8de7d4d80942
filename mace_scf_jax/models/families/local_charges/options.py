"""The training options of the family LocalCharges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mace_scf_jax.options import OptionGroup


class LocalChargesOptions(OptionGroup):
    """Charges (LocalCharges)"""

    decide_weights = False

    conserve_charge: Literal["none", "uniform", "learned"] = Field(
        default="learned",
        description="what becomes of charge beyond total_charge: none, it stays; uniform, all "
        "atoms give up the same; learned, the surplus of an atom goes to its neighbours, in "
        "proportion to learned weights",
    )
    charge_readout: Literal["linear", "nonlinear"] = Field(
        default="linear",
        description="how multipoles are read from the last of several layers: linear, as those of "
        "the others; nonlinear, with hidden features, as energies are",
    )
