"""Settings of the MACE backbone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mace_scf_jax.backbones.backbone import BackboneSettings
from mace_scf_jax.backbones.mace.choices import (
    DISTANCE_TRANSFORMS,
    INTERACTIONS,
    RADIAL_BASES,
    READOUT_CLASSES,
)
from mace_scf_jax.backbones.mace.embedded_inputs import EmbeddedInput, embedded_inputs
from mace_scf_jax.layers.notation import (
    GATES,
    Multiplicities,
    parse_multiplicities,
    parse_uniform_irreps,
)
from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.options.values import (
    Literally,
    NoneInText,
    PositiveWholeNumber,
    WholeNumberFromZero,
    not_yet,
)

if TYPE_CHECKING:
    from mace_scf_jax.data.configuration import Configuration
    from mace_scf_jax.data.training_set import TrainingSet


VARIANTS = (
    "apply_cutoff",
    "edge_irreps",
    "use_edge_irreps_first",
    "use_agnostic_product",
    "embedding_specs",
    "use_embedding_readout",
    "use_last_readout_only",
    "readout_cls",
    "heads",
    "pair_repulsion_scale",
)
"""Settings of networks that are not the usual one; the first model files had none of them."""

EMBEDDABLE = ("total_charge", "total_spin")
"""Inputs of structures that can be embedded."""


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
    correlation: int | tuple[int, ...] = 3
    """Highest order of the products, of all layers or of each."""
    num_interactions: int = 2
    interaction: str = "RealAgnosticResidualInteractionBlock"
    interaction_first: str = "RealAgnosticResidualInteractionBlock"
    radial_MLP: tuple[int, ...] = (64, 64, 64)  # noqa: N815  (name of the option)
    radial_type: str = "bessel"
    distance_transform: str = "None"
    apply_cutoff: bool = True
    """Cut off the radial basis; else what radial networks make of it."""
    edge_irreps: str | None = None
    """Features that are sent along edges, from the second layer on; None for all features."""
    use_edge_irreps_first: bool = False
    """Send only the scalars of `edge_irreps` in the first layer too."""
    use_agnostic_product: bool = False
    """Give products the same weights for all elements."""
    MLP_irreps: str = "16x0e"
    gate: str = "silu"
    avg_num_neighbors: float = 1.0
    pair_repulsion: bool = False
    pair_repulsion_scale: float = 1.0
    """Factor on the repulsion of nuclei, of models that were scaled as a whole."""
    scalar_last_layer: bool = False
    """Keep only scalars in the last layer (plain MACE)."""
    use_linear_final_readout: bool = False
    """Make the last energy readout linear, like those of the other layers."""
    embedding_specs: tuple[EmbeddedInput, ...] = ()
    """Inputs of structures that are embedded beside the elements."""
    use_embedding_readout: bool = False
    """Read an energy from the embedding before the first layer too."""
    use_last_readout_only: bool = False
    """Read the energy from the last layer alone."""
    readout_cls: str = "NonLinearReadoutBlock"
    """Last energy readout of several: with one hidden layer, or with two and biases."""
    heads: tuple[str, ...] = ()
    """Levels of theory, each with energy readouts of its own; empty for a single one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        object.__setattr__(self, "radial_MLP", tuple(int(w) for w in self.radial_MLP))
        object.__setattr__(self, "embedding_specs", embedded_inputs(self.embedding_specs))
        for entry in self.embedding_specs:
            known = entry.name in EMBEDDABLE and (entry.per, entry.in_dim) == ("graph", 1)
            _require(known, "embedding_specs", f"numbers per graph: {', '.join(EMBEDDABLE)}", entry)
        _require(
            not self.use_embedding_readout or self.embedding_specs != (),
            "use_embedding_readout",
            "embedding_specs beside it",
            self.embedding_specs,
        )
        object.__setattr__(self, "heads", tuple(self.heads))
        distinct = len(self.heads) != 1 and len(set(self.heads)) == len(self.heads)
        _require(distinct, "heads", "none, or several distinct names", self.heads)
        if not isinstance(self.correlation, int):
            object.__setattr__(self, "correlation", tuple(self.correlation))
        _require(
            len(self.elements) > 0
            and all(0 < z < 119 for z in self.elements)
            and list(self.elements) == sorted(set(self.elements)),
            "elements",
            "distinct atomic numbers in ascending order",
            self.elements,
        )
        parse_uniform_irreps(self.hidden_irreps, option="hidden_irreps")
        hidden = parse_multiplicities(self.MLP_irreps, option="MLP_irreps")
        _require(not self.heads or set(hidden) == {0}, "MLP_irreps", "scalars with heads", hidden)
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
        _require(self.num_interactions >= 1, "num_interactions", "≥ 1", self.num_interactions)
        orders = self.correlation
        if isinstance(orders, int):
            orders = (orders,) * self.num_interactions
        in_range = all(1 <= order <= 4 for order in orders)
        _require(in_range, "correlation", "1, 2, 3 or 4", self.correlation)
        layers = self.num_interactions
        _require(len(orders) == layers, "correlation", f"one for each of {layers} layers", orders)
        _require(
            self.edge_irreps is not None or not self.use_edge_irreps_first,
            "use_edge_irreps_first",
            "edge_irreps beside it",
            self.edge_irreps,
        )
        if self.edge_irreps is not None:
            parse_uniform_irreps(self.edge_irreps, option="edge_irreps")
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
            ("readout_cls", READOUT_CLASSES),
        ):
            value = getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(choices)}", value)
        _require(self.avg_num_neighbors > 0, "avg_num_neighbors", "> 0", self.avg_num_neighbors)

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet, **measured: Any) -> MACESettings:
        """Return the settings that options and what was measured describe."""
        of_options = {"hidden_irreps": options.irreps, "gate": str(options.gate)}
        return super().from_options(options, training, **of_options, **measured)

    def as_options(self) -> dict[str, Any]:
        """Return options of training that describe these settings."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("elements", "heads", "scalar_last_layer", "pair_repulsion_scale")
        }
        specs = {entry.name: entry.to_spec() for entry in self.embedding_specs}
        return values | {"embedding_specs": specs or None, "compute_avg_num_neighbors": False}

    def with_elements(self, elements: tuple[int, ...]) -> MACESettings:
        """Return the settings for some of the elements."""
        return dataclasses.replace(self, elements=elements)

    def started(
        self, *, heads: tuple[str, ...], scale: float = 1.0, all_degrees: bool = False
    ) -> MACESettings:
        """Return the settings of a new model that starts from one of these."""
        return dataclasses.replace(
            self,
            heads=heads,
            pair_repulsion_scale=scale * self.pair_repulsion_scale if self.pair_repulsion else 1.0,
            scalar_last_layer=self.scalar_last_layer and not all_degrees,
        )

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; variants of the network that are not in use are left out."""
        values = super().to_dict()
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name not in VARIANTS or value != defaults[name]
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs of a structure that the features depend on."""
        return tuple(entry.name for entry in self.embedding_specs)

    def check_structure(self, configuration: Configuration) -> None:
        """Refuse inputs of a structure that cannot be embedded."""
        for entry in self.embedding_specs:
            entry.check(configuration)

    def layer_max_degree(self, layer: int) -> int:
        """Highest degree of the features that a layer returns."""
        last = layer == self.num_interactions - 1
        return 0 if last and self.scalar_last_layer else self.max_hidden_degree

    def layer_multiplicities(self, layer: int) -> Multiplicities:
        """Channels per degree of the features that a layer returns; of layer -1, its input."""
        max_degree = 0 if layer < 0 else self.layer_max_degree(layer)
        return dict.fromkeys(range(max_degree + 1), self.channels)

    def edge_multiplicities(self, layer: int) -> Multiplicities:
        """Channels per degree of the features that a layer sends along edges."""
        if self.edge_irreps is None or (layer == 0 and not self.use_edge_irreps_first):
            return self.layer_multiplicities(layer - 1)
        sent = parse_multiplicities(self.edge_irreps, option="edge_irreps")
        return {0: sent[0]} if layer == 0 else sent

    def layer_correlation(self, layer: int) -> int:
        """Highest order of the products of a layer."""
        return self.correlation if isinstance(self.correlation, int) else self.correlation[layer]

    def layer_interaction(self, layer: int) -> str:
        """Name of the interaction class of a layer."""
        return self.interaction_first if layer == 0 else self.interaction

    @property
    def product_elements(self) -> int:
        """Number of elements that products tell apart."""
        return 1 if self.use_agnostic_product else len(self.elements)

    @property
    def readout_layers(self) -> tuple[int, ...]:
        """Layers with an energy readout."""
        layers = range(self.num_interactions)
        return tuple(layers[-1:] if self.use_last_readout_only else layers)

    def hidden_layers_of_readout(self, layer: int) -> int:
        """Number of hidden layers of the energy readout of a layer: 0 if it is linear."""
        is_last_of_several = layer == self.num_interactions - 1 and layer > 0
        if not is_last_of_several or self.use_linear_final_readout:
            return 0
        return READOUT_CLASSES[self.readout_cls]


InteractionBlock = Annotated[
    Literal[
        "RealAgnosticInteractionBlock",
        "RealAgnosticResidualInteractionBlock",
        "RealAgnosticDensityInteractionBlock",
        "RealAgnosticDensityResidualInteractionBlock",
        "RealAgnosticResidualNonLinearInteractionBlock",
    ],
    not_yet("RealAgnosticAttResidualInteractionBlock"),
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
    apply_cutoff: bool = Field(
        default=MACESettings.apply_cutoff,
        description="cut off the radial basis; else what radial networks make of it",
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
    correlation: Annotated[PositiveWholeNumber | tuple[PositiveWholeNumber, ...], Literally] = (
        Field(
            default=MACESettings.correlation,
            description="correlation order of the product basis; a list has one for each layer",
        )
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
    edge_irreps: Annotated[str | None, NoneInText] = Field(
        default=MACESettings.edge_irreps,
        description="features that are sent along edges from the second layer on, such as "
        "16x0e + 16x1o; None for all",
    )
    use_edge_irreps_first: bool = Field(
        default=MACESettings.use_edge_irreps_first,
        description="send only the scalars of edge_irreps in the first layer too",
    )
    use_agnostic_product: bool = Field(
        default=MACESettings.use_agnostic_product,
        description="give products the same weights for all elements",
    )
    embedding_specs: Annotated[dict[str, dict[str, Any]] | None, Literally, NoneInText] = Field(
        default=None,
        description="inputs embedded beside the elements, such as {total_spin: {type: categorical, "
        "num_classes: 11, emb_dim: 16}, total_charge: {…, offset: 5}}",
    )
    use_embedding_readout: bool = Field(
        default=MACESettings.use_embedding_readout,
        description="read an energy from the embedding before the first layer too",
    )
    use_last_readout_only: bool = Field(
        default=MACESettings.use_last_readout_only,
        description="read the energy from the last layer alone",
    )
    readout_cls: Literal["NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"] = Field(
        default=MACESettings.readout_cls,
        description="last energy readout: one hidden layer, or two with biases",
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
