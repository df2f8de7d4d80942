"""Settings of the MACE backbone."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mace_scf_jax.backbones.backbone import BackboneSettings
from mace_scf_jax.backbones.mace.interaction import INTERACTIONS
from mace_scf_jax.backbones.mace.radial import DISTANCE_TRANSFORMS, RADIAL_BASES
from mace_scf_jax.layers.features import parse_multiplicities, parse_uniform_irreps
from mace_scf_jax.layers.readout import GATES


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
    def from_options(cls, options: Any, **measured: Any) -> MACESettings:
        """Return the settings that options and what was measured describe."""
        of_options = {"hidden_irreps": options.irreps, "gate": str(options.gate)}
        return super().from_options(options, **of_options, **measured)

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
