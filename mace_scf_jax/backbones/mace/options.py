"""The training options of the MACE backbone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.backbones.mace.radial import RADIAL_BASES
from mace_scf_jax.backbones.mace.settings import MACESettings
from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.options.values import (
    Literally,
    NoneInText,
    PositiveWholeNumber,
    WholeNumberFromZero,
    not_yet,
)

InteractionBlock = Annotated[
    Literal[
        "RealAgnosticInteractionBlock",
        "RealAgnosticResidualInteractionBlock",
        "RealAgnosticDensityInteractionBlock",
        "RealAgnosticDensityResidualInteractionBlock",
    ],
    not_yet(
        "RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock"
    ),
]


class MACEOptions(OptionGroup):
    """Backbone MACE"""

    decide_weights = False

    radial_type: Annotated[str, OneOf(RADIAL_BASES)] = Field(
        default=MACESettings.radial_type, description="radial basis"
    )
    num_radial_basis: PositiveWholeNumber = Field(
        default=MACESettings.num_radial_basis, description="number of radial basis functions"
    )
    num_cutoff_basis: PositiveWholeNumber = Field(
        default=MACESettings.num_cutoff_basis, description="exponent p of the polynomial cutoff"
    )
    distance_transform: Literal["None", "Agnesi", "Soft"] = Field(
        default=MACESettings.distance_transform,
        description="transform of distances before the radial basis",
    )
    pair_repulsion: bool = Field(
        default=MACESettings.pair_repulsion,
        description="add the ZBL repulsion of nuclei to the energy",
    )
    max_ell: WholeNumberFromZero = Field(
        default=MACESettings.max_ell,
        description="highest order of the spherical harmonics of edges",
    )
    hidden_irreps: Annotated[str | None, NoneInText] = Field(
        default=None, description="node features, such as 64x0e + 64x1o (equal multiplicities)"
    )
    num_channels: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None, description="with max_L: channels of hidden_irreps, which these two replace"
    )
    max_L: Annotated[WholeNumberFromZero | None, NoneInText] = Field(  # noqa: N815
        default=None, description="with num_channels: highest order in hidden_irreps"
    )
    correlation: PositiveWholeNumber = Field(
        default=MACESettings.correlation, description="correlation order of the product basis"
    )
    num_interactions: PositiveWholeNumber = Field(
        default=MACESettings.num_interactions, description="number of layers"
    )
    interaction: InteractionBlock = Field(
        default=MACESettings.interaction, description="block of layers 2, 3, …"
    )
    interaction_first: InteractionBlock = Field(
        default=MACESettings.interaction_first, description="block of the first layer"
    )
    radial_MLP: Annotated[tuple[PositiveWholeNumber, ...], Literally] = Field(  # noqa: N815
        default=MACESettings.radial_MLP,
        description="widths of the hidden layers of the radial network",
    )
    use_linear_final_readout: bool = Field(
        default=MACESettings.use_linear_final_readout,
        description="make the last energy readout linear too",
    )

    def problems(self) -> list[str]:
        """Return sentences on features that are given not at all, or by half."""
        if (self.num_channels is None) != (self.max_L is None):
            return ["options 'num_channels' and 'max_L': give both or none"]
        if self.hidden_irreps is None and self.num_channels is None:
            return ["option 'hidden_irreps' (or 'num_channels' and 'max_L') is required"]
        return []

    @property
    def irreps(self) -> str:
        """Hidden irreps: ``num_channels`` and ``max_L`` win over ``hidden_irreps``."""
        if self.num_channels is None or self.max_L is None:
            return str(self.hidden_irreps)
        orders = range(self.max_L + 1)
        return " + ".join(f"{self.num_channels}x{order}{'eo'[order % 2]}" for order in orders)
