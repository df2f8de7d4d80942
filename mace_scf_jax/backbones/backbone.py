"""What a backbone is: a network from structures to features of atoms, chosen by name.

A backbone is its settings, a Flax module that is called with a batch, the options that training
takes for it, and the optimiser groups of its parameters. Families see its settings and its output
only, and say what they need of it.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from mace_scf_jax import layers
from mace_scf_jax.late import late_field
from mace_scf_jax.layers.notation import parse_multiplicities
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.parameter_group import ParameterGroup
from mace_scf_jax.registry import Registry

if TYPE_CHECKING:
    import flax.linen as nn
    from jaxtyping import Array, Float, Int

    from mace_scf_jax.data.atom_features import AtomFeatures
    from mace_scf_jax.data.configuration import Configuration
    from mace_scf_jax.data.sets import StructureSet
    from mace_scf_jax.data.training_set import TrainingSet
    from mace_scf_jax.graph import Graph
    from mace_scf_jax.layers.features import Features
    from mace_scf_jax.layers.notation import Multiplicities


class Offer(enum.StrEnum):
    """What some backbones can do beyond features of atoms."""

    EDGES = "features of its edges"
    """`BackboneOutput.edges` is there."""
    DEGREES = "features of degrees above 0"
    """`BackboneSettings.max_hidden_degree` can be above 0."""
    DESCRIPTORS = "descriptors of atoms"
    """Features are the same function of the geometry whatever the parameters."""
    HEADS = "readouts of several heads"
    """Settings have ``heads``, by which `BackboneOutput.layer_energies` differ."""
    EMBEDDING = "an element embedding that can be mixed with other inputs"
    """The module takes ``mix_embedding``, a function of the features before the first layer."""


class EdgeFeatures(NamedTuple):
    """Geometry of the edges as the layers see it."""

    vectors: Float[Array, "edges 3"]
    """From sender to receiver, in Å; (0, 0, 1) for padding edges."""
    harmonics: Float[Array, "edges components"]
    radial_basis: Float[Array, "edges basis"]
    """With its envelope; zero for padding edges."""


class BackboneOutput(NamedTuple):
    """What a backbone computes for every atom of a batch."""

    layers: tuple[Features, ...]
    """Features of each layer, of the degrees and channels that the settings tell."""
    layer_energies: Float[Array, "layers atoms"]
    """Energy readout of each layer in eV (before any scaling)."""
    pair_energy: Float[Array, "atoms"]
    """Nuclear repulsion in eV; zero unless asked for."""
    embedding_energy: Float[Array, "atoms"] | None = None
    """Energy in eV of inputs that are embedded, which is not scaled; None where there is none."""
    edges: EdgeFeatures | None = None
    """None for backbones that do not offer `Offer.EDGES`."""
    species: Int[Array, "atoms"] | None = None
    """Element of each atom, where readouts differ between elements; else None."""


class BackboneSettings(abc.ABC):
    """Sizes and choices of a backbone: a frozen dataclass with at least these attributes."""

    name: ClassVar[str]
    """Of the backbone in `BACKBONES`."""

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    r_max: float
    """Cutoff of the edges in Å."""
    MLP_irreps: str = "16x0e"
    """Hidden features of the nonlinear readouts of a family."""
    gate: str = "silu"
    """Activation of these readouts."""
    max_ell: int = 0
    """Highest degree of the harmonics of the edges."""

    @property
    @abc.abstractmethod
    def num_interactions(self) -> int:
        """Number of layers; what an atom sees reaches as many times as far as the cutoff."""

    @property
    @abc.abstractmethod
    def channels(self) -> int:
        """Channels of every degree of the features."""

    @property
    @abc.abstractmethod
    def max_hidden_degree(self) -> int:
        """Highest degree of the features."""

    @property
    def irreps(self) -> str:
        """The features in words."""
        degrees = range(self.max_hidden_degree + 1)
        return " + ".join(f"{self.channels}x{l}{'eo'[l % 2]}" for l in degrees)

    def read_out(
        self,
        output: BackboneOutput,
        multiplicities: Multiplicities,
        *,
        label: str,
        nonlinear_last: bool,
    ) -> Features:
        """Return what readouts of all layers add up to; for use within a compact Flax module.

        Args:
            output: of the module.
            multiplicities: channels per degree of the result.
            label: first part of the names of the readouts, which the layers number.
            nonlinear_last: let the last of several layers have hidden features, of every degree
                that is read at least as many as `MLP_irreps` has scalars.
        """
        hidden = parse_multiplicities(self.MLP_irreps, option="MLP_irreps")
        hidden = dict.fromkeys(multiplicities, hidden.get(0, 1)) | hidden
        read: list[Features] = []
        for layer, features in enumerate(output.layers):
            name = f"{label}_{layer}"
            if nonlinear_last and 0 < layer == len(output.layers) - 1:
                readout = layers.NonlinearReadout(multiplicities, hidden, self.gate, name=name)
            else:
                readout = layers.LinearReadout(multiplicities, name=name)
            read.append(readout(features))
        return {degree: layers.add_up(each[degree] for each in read) for degree in multiplicities}

    @property
    def last_map(self) -> str:
        """Pattern of the parameters that what `read_out` gives is linear in, below its name."""
        return "linear/"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs of a structure that the features depend on."""
        return ()

    def as_options(self) -> dict[str, Any]:
        """Return options of training that describe these settings, what was measured among them.

        Raises:
            ValueError: no new model can have these settings.
        """
        raise ValueError(f"start_from: expected the backbone MACE, found {self.name}")

    def with_elements(self, elements: tuple[int, ...]) -> BackboneSettings:
        """Return the settings for some of the elements.

        Args:
            elements: atomic numbers, ascending.

        Raises:
            ValueError: features depend on which elements there are.
        """
        if elements == self.elements:
            return self
        raise ValueError(
            f"the features of the backbone {self.name} depend on which elements there are, so "
            "that it cannot have fewer"
        )

    def started(
        self, *, heads: tuple[str, ...], scale: float = 1.0, all_degrees: bool = False
    ) -> BackboneSettings:
        """Return the settings of a new model that starts from one of these.

        Args:
            heads: of the new model; none for a single one.
            scale: factor on its energies, as far as no parameters carry it.
            all_degrees: whether all layers are to have all degrees of the features.
        """
        return self

    def check_structure(self, configuration: Configuration) -> None:  # noqa: B027
        """Refuse inputs of a structure that make no sense.

        Raises:
            DataError: says what was found and expected.
        """

    @property
    def least_distance(self) -> float:
        """Shortest distance of atoms in Å that models are meant for; 0 for any."""
        return 0.0

    @property
    def on_request(self) -> tuple[str, ...]:
        """Names of the outputs that `describe` returns."""
        return ()

    def describe(self, graph: Graph) -> dict[str, Array]:
        """Return outputs that depend on no parameters, and are given only if asked for."""
        return {}

    @classmethod
    def cutoff_of(cls, options: Any) -> float:
        """Return the cutoff of the edges in Å that options ask for."""
        return options.r_max

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet, **measured: Any) -> BackboneSettings:
        """Return the settings that options and what was measured describe.

        Args:
            options: of a run; those that are fields of the settings, by the same name, are used.
            training: what is measured on.
            measured: further values by name; those that are no fields of the settings are not used.
        """
        measured |= {"elements": training.elements, "heads": training.heads}
        fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        measured = {name: value for name, value in measured.items() if name in fields}
        return cls(**options.values_for(cls) | measured)

    @classmethod
    def features_of(cls, options: Any) -> Callable[[tuple[int, ...]], AtomFeatures] | None:
        """Return how to compute what may be stored with structures, by the elements of the data.

        Here None: there is nothing to store. With features `precompute` can use stored ones.

        Args:
            options: of a run.
        """
        return None

    def precompute(
        self, structures: StructureSet, options: Any, *, derivatives: bool, edges_are_read: bool
    ) -> StructureSet | None:
        """Return structures with all that need not be computed anew in every training step.

        Here None: there is nothing to compute beforehand.

        Args:
            structures: of the run, with edges.
            options: of the run.
            derivatives: whether derivatives by the geometry will be asked for; else edges are left
                out.
            edges_are_read: whether the model reads edges beside what the backbone makes of them.

        Raises:
            ConfigurationError: options ask for what cannot be done.
        """
        return None

    def build(self, **arguments: Any) -> nn.Module:
        """Return the module; ``arguments`` are those of any Flax module, such as its name."""
        return BACKBONES[self.name].module(self, **arguments)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `settings_from_dict` makes the same settings."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return values if self.name == DEFAULT_BACKBONE else {"name": self.name} | values


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone with all that is to be said about it."""

    name: str
    """Value of the option ``backbone``."""
    module: type[nn.Module] = late_field()
    """``module(settings)(graph)`` gives a `BackboneOutput`."""
    settings: type[BackboneSettings] = late_field()
    options: type[OptionGroup]
    """What training asks for, beside what it asks for every backbone."""
    groups: Mapping[str, ParameterGroup]
    """Optimiser group of the parameters whose path within the module begins with a pattern."""
    offers: frozenset[Offer] = frozenset()
    unscaled_by_element: str | None = None
    """Pattern of the paths of weights that every element has for itself and that are used as they
    are; of other such weights maps divide by the square root of the number of elements."""


DEFAULT_BACKBONE = "MACE"
"""The backbone of files and configurations that name none."""

BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    modules=("mace_scf_jax.backbones.mace", "mace_scf_jax.backbones.chebyshev"),
    names=("MACE", "chebyshev"),
)
"""All backbones by name; plugins add theirs."""


def settings_from_dict(data: Mapping[str, Any]) -> BackboneSettings:
    """Return the settings of a backbone from plain data, such as a JSON object.

    Raises:
        UnknownNameError: there is no backbone of that name.
        TypeError, ValueError: a field is missing, unknown or invalid.
    """
    values = {name: as_tuples(value) for name, value in data.items()}
    return BACKBONES[values.pop("name", DEFAULT_BACKBONE)].settings(**values)


def as_tuples(value: Any) -> Any:
    """Return a value of JSON with tuples for lists, as frozen settings hold it."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
