"""Options of training for the Chebyshev backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from ase.data import atomic_numbers, chemical_symbols
from pydantic import BeforeValidator, Field

from mace_scf_jax.backbones.chebyshev.descriptor import SHORTEST_DISTANCE, Descriptor
from mace_scf_jax.options import OptionGroup, block
from mace_scf_jax.options.values import (
    Literally,
    NoneInText,
    Number,
    NumberFromZero,
    PositiveNumber,
    WholeNumberFromZero,
    names_in,
)

if TYPE_CHECKING:
    from mace_scf_jax.backbones.chebyshev.networks import Architecture

ROOM_FOR_FEATURES = 2_000_000_000
"""Bytes that the features of a set, and what their derivatives need, may take."""

WHOLE = "all"
"""Key of an architecture that is that of all elements."""


def _word(value: Any) -> Any:
    """A truth value in words."""
    return str(value).lower() if isinstance(value, bool | str) else value


def _elements(value: Any) -> Any:
    """Atomic numbers from symbols or numbers; None, as records of trainings have it, stays."""
    if value is None:
        return None
    found = []
    for element in names_in(value):
        number = int(element) if element.isdecimal() else atomic_numbers.get(element, 0)
        if not 0 < number < len(chemical_symbols):
            raise ValueError(f"expected elements such as [Ti, O], found {element!r}")
        found.append(number)
    return tuple(found)


def _architectures(value: Any) -> dict[int | str, Architecture]:
    """Hidden layers by atomic number, or of all elements."""
    if isinstance(value, dict) and list(value) == [WHOLE]:
        value = value[WHOLE]
    if not isinstance(value, dict):
        return {WHOLE: _architecture("of all elements", value)}
    return {_elements([key])[0]: _architecture(f"{key}", layers) for key, layers in value.items()}


def _architecture(where: str, layers: Any) -> Architecture:
    """Hidden layers [nodes, activation]; names of activations in capitals or not."""
    from mace_scf_jax.backbones.chebyshev.networks import ACTIVATIONS  # slow to import

    try:
        found = tuple((int(nodes), str(name).lower()) for nodes, name in layers)
    except (TypeError, ValueError):
        found = ()
    known = all(nodes > 0 and name in ACTIVATIONS for nodes, name in found)
    if not found or not known:
        raise ValueError(
            f"{where}: expected hidden layers [[nodes, activation], …] with activations "
            f"{', '.join(ACTIVATIONS)}, found {layers!r}"
        )
    return found


class DescriptorOptions(OptionGroup):
    """Orders and cutoffs of the descriptor."""

    rad_order: WholeNumberFromZero
    rad_cutoff: PositiveNumber
    ang_order: WholeNumberFromZero
    ang_cutoff: PositiveNumber
    min_cutoff: NumberFromZero = SHORTEST_DISTANCE
    species: Annotated[tuple[int, ...] | None, BeforeValidator(_elements)] = None

    def problems(self) -> list[str]:
        """Return what does not make a descriptor."""
        try:
            self.of_elements(self.species or (1,))
        except ValueError as error:
            return [str(error)]
        return []

    def of_elements(self, elements: tuple[int, ...]) -> Descriptor:
        """Return the descriptor; without ``species`` their order is that of the elements."""
        return Descriptor(**self.model_dump() | {"species": self.species or elements})


class FeatureStatisticsOptions(OptionGroup):
    """Mean and deviation of each feature."""

    mean: tuple[Number, ...]
    std: tuple[NumberFromZero, ...]


Layers = Annotated[dict[Any, Any], BeforeValidator(_architectures), Literally]


class ChebyshevOptions(OptionGroup):
    """Backbone chebyshev"""

    decide_weights = False

    descriptor: Annotated[
        DescriptorOptions | None, block("descriptor", DescriptorOptions), Literally, NoneInText
    ] = Field(
        default=None,
        description="{rad_order, rad_cutoff, ang_order, ang_cutoff, min_cutoff, species}: orders "
        "and radii (Å) of the functions; species gives the order of the weights of the elements "
        "(default: ascending atomic number)",
        examples=[{"rad_order": 10, "rad_cutoff": 6.0, "ang_order": 3, "ang_cutoff": 3.5}],
    )
    arch: Annotated[Layers | None, NoneInText] = Field(
        default=None,
        description="hidden layers of the networks, [[nodes, activation], …] for all elements or "
        "{element: [[nodes, activation], …]}; activations linear, tanh, sigmoid, mtanh, twist",
        examples=[[[10, "tanh"], [10, "tanh"]]],
    )
    normalize_features: bool | Literal["per_element"] = Field(
        default=True,
        description="subtract the mean of each feature over the training set and divide by its "
        "deviation; per_element: each element by its own",
    )
    feature_stats: Annotated[
        FeatureStatisticsOptions | None,
        block("feature_stats", FeatureStatisticsOptions),
        Literally,
        NoneInText,
    ] = Field(default=None, description="{mean, std} of every feature, instead of measured ones")
    cache_features: Annotated[Literal["auto", "true", "false"], BeforeValidator(_word)] = Field(
        default="auto",
        description="compute features and their derivatives once before the first epoch: auto, for "
        "sets where that takes less than 2 GB; it changes no result",
    )
    normalize_energy: bool = Field(
        default=True,
        description="let the networks give energies between -1 and 1 for the training set",
    )
    E_shift: Annotated[Number | None, NoneInText] = Field(
        default=None, description="energy per atom in eV that is added, instead of the measured one"
    )
    E_scaling: Annotated[PositiveNumber | None, NoneInText] = Field(
        default=None,
        description="by which the outputs of the networks are divided, in 1/eV, instead of the "
        "measured one",
    )

    def problems(self) -> list[str]:
        """Return what is missing, or contradicts itself."""
        missing = [name for name in ("descriptor", "arch") if getattr(self, name) is None]
        problems = [f"option {name!r} is required by the backbone chebyshev" for name in missing]
        if self.feature_stats is not None:
            if self.normalize_features is not True:
                problems.append(
                    "option 'feature_stats': needs normalize_features: true, found "
                    f"{self.normalize_features}"
                )
            if len(self.feature_stats.mean) != len(self.feature_stats.std):
                problems.append(
                    "option 'feature_stats': expected as many deviations as means, found "
                    f"{len(self.feature_stats.std)} and {len(self.feature_stats.mean)}"
                )
        return problems
