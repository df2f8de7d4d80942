"""Settings of the MACE backbone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mace_scf_jax.backbones.backbone import BackboneSettings
from mace_scf_jax.backbones.mace.choices import DISTANCE_TRANSFORMS, INTERACTIONS, RADIAL_BASES
from mace_scf_jax.layers.notation import GATES, parse_multiplicities, parse_uniform_irreps
from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.options.values import (
    Literally,
    NoneInText,
    PositiveWholeNumber,
    WholeNumberFromZero,
    not_yet,
)

if TYPE_CHECKING:
    from mace_scf_jax.data.training_set import TrainingSet


def _require(condition: bool, name: str, expected: str, found: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, found {found!r}")


@dataclasses.dataclass(frozen=True)
class MACESettings(BackboneSettings):
    """Sizes and choices of the MACE backbone; lengths in Å.

    Field names are those of the training options where one exists.

    Raises:
        ValueError: a value is out of range or not one of the choices.
    """

    name: ClassVar[str] = "MACE"

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    hidden_irreps: str = "128x0e + 128x1o"
    r_max: float = 5.0
    num_radial_basis: int = 8
    num_cutoff_basis: int = 5
    max_ell: int = 3
    correlation: int = 3
    num_interactions: int = 2
    interaction: str = "RealAgnosticResidualInteractionBlock"
    interaction_first: str = "RealAgnosticResidualInteractionBlock"
    radial_MLP: tuple[int, ...] = (64, 64, 64)  # noqa: N815  (name of the option)
    radial_type: str = "bessel"
    distance_transform: str = "None"
    MLP_irreps: str = "16x0e"
    gate: str = "silu"
    avg_num_neighbors: float = 1.0
    pair_repulsion: bool = False
    scalar_last_layer: bool = False
    """Keep only scalars in the last layer (plain MACE)."""
    use_linear_final_readout: bool = False
    """Make the last energy readout linear, like those of the other layers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        object.__setattr__(self, "radial_MLP", tuple(int(w) for w in self.radial_MLP))
        _require(
            len(self.elements) > 0
            and all(0 < z < 119 for z in self.elements)
            and list(self.elements) == sorted(set(self.elements)),
            "elements",
            "distinct atomic numbers in ascending order",
            self.elements,
        )
        parse_uniform_irreps(self.hidden_irreps, option="hidden_irreps")
        parse_multiplicities(self.MLP_irreps, option="MLP_irreps")
        _require(self.r_max > 0, "r_max", "a positive length in Å", self.r_max)
        _require(
            self.radial_type in RADIAL_BASES,
            "radial_type",
            f"one of {', '.join(RADIAL_BASES)}",
            self.radial_type,
        )
        smallest_basis = RADIAL_BASES[self.radial_type].smallest_size
        _require(
            self.num_radial_basis >= smallest_basis,
            "num_radial_basis",
            f"at least {smallest_basis}",
            self.num_radial_basis,
        )
        _require(self.num_cutoff_basis >= 2, "num_cutoff_basis", "≥ 2", self.num_cutoff_basis)
        _require(0 <= self.max_ell <= 3, "max_ell", "0, 1, 2 or 3", self.max_ell)
        _require(1 <= self.correlation <= 4, "correlation", "1, 2, 3 or 4", self.correlation)
        _require(self.num_interactions >= 1, "num_interactions", "≥ 1", self.num_interactions)
        for name in ("interaction", "interaction_first"):
            value = getattr(self, name)
            _require(value in INTERACTIONS, name, f"one of {', '.join(INTERACTIONS)}", value)
        _require(
            all(width > 0 for width in self.radial_MLP),
            "radial_MLP",
            "positive widths",
            self.radial_MLP,
        )
        for name, choices in (
            ("distance_transform", DISTANCE_TRANSFORMS),
            ("gate", GATES),
        ):
            value = getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(choices)}", value)
        _require(self.avg_num_neighbors > 0, "avg_num_neighbors", "> 0", self.avg_num_neighbors)

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet, **measured: Any) -> MACESettings:
        """Return the settings that options and what was measured describe."""
        of_options = {"hidden_irreps": options.irreps, "gate": str(options.gate)}
        return super().from_options(options, training, **of_options, **measured)

    @property
    def irreps(self) -> str:
        """The features in words."""
        return self.hidden_irreps

    @property
    def channels(self) -> int:
        """Channels of every degree of the hidden features."""
        return parse_uniform_irreps(self.hidden_irreps, option="hidden_irreps")[0]

    @property
    def max_hidden_degree(self) -> int:
        """Highest degree of the hidden features."""
        return parse_uniform_irreps(self.hidden_irreps, option="hidden_irreps")[1]

    def layer_max_degree(self, layer: int) -> int:
        """Highest degree of the features that a layer returns."""
        last = layer == self.num_interactions - 1
        return 0 if last and self.scalar_last_layer else self.max_hidden_degree


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
