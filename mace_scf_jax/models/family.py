"""What a model family is: everything that is to be said about it, in one object.

A family is a Flax module over `ModelSettings`, its own settings, the options from which training
makes them, the optimiser groups of its parameters, its outputs, what it needs of a backbone, and
how its state is solved. All lists of families and of what they have are derived from `FAMILIES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mace_scf_jax.backbones.backbone import DEFAULT_BACKBONE, Offer, as_tuples
from mace_scf_jax.late import late_field
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.parameter_group import ParameterGroup
from mace_scf_jax.registry import Registry

if TYPE_CHECKING:
    import flax.linen as nn
    from jaxtyping import Array

    from mace_scf_jax.data.configuration import Configuration
    from mace_scf_jax.data.training_set import TrainingSet
    from mace_scf_jax.graph import Graph
    from mace_scf_jax.models.settings import ModelSettings

Parameters = dict[str, Any]
"""A nested dictionary of arrays."""


@dataclasses.dataclass(frozen=True)
class FamilySettings:
    """Settings that a family has beside those of all models; families without any have these."""

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> FamilySettings:
        """Return what options and training set describe; here, options of the same names.

        Raises:
            ConfigurationError: options and training set do not go together.
        """
        return cls(**options.values_for(cls))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the per-atom inputs that every structure has to come with."""
        return ()

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """Names of inputs of a structure that the family reads beside total charge and field."""
        return ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of outputs that these settings ask for, beside those of the family."""
        return ()

    @property
    def conserves_charge(self) -> bool:
        """Whether the charges of a structure add up to what does not depend on its geometry."""
        return True

    @property
    def has_polarization(self) -> bool:
        """Whether the dipole is a polarization: along periodic directions too, its changes do not
        depend on which image of an atom is given."""
        return False

    @property
    def reads_edges(self) -> bool:
        """Whether the family reads edges beside what its backbone makes of them."""
        return False

    def as_options(self, elements: tuple[int, ...]) -> dict[str, Any]:
        """Return those options of training without which these settings could not be asked for.

        Args:
            elements: atomic numbers of the model, ascending.
        """
        return {}

    def with_elements(self, kept: Sequence[int]) -> FamilySettings:
        """Return the settings for some of the elements; here the same, which depend on none.

        Args:
            kept: positions of these elements among those that there are.

        Raises:
            ValueError: the settings were measured on all of them together.
        """
        return self

    def with_surplus(self, *, uniform: bool) -> FamilySettings:
        """Return settings with charge beyond the total charge left, or given up by all atoms alike.

        Raises:
            ValueError: charges add up in a way of their own.
        """
        raise ValueError(
            "surplus: expected a model whose charges need not add up to the total charge, found "
            f"one whose charges do ({type(self).__name__})"
        )

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse other settings of the model that do not go with these.

        Raises:
            ValueError: says what was found and expected.
        """

    def check_structure(self, configuration: Configuration) -> None:
        """Refuse inputs of a structure, all of which are present, that make no sense.

        Raises:
            DataError: says what was found and expected.
        """


class Solve(Protocol):
    """How outputs follow from a batch."""

    @property
    def default(self) -> Any:
        """How the state is solved for unless told otherwise; None where nothing is solved for."""
        ...

    def outputs(
        self, module: nn.Module, params: Parameters, graph: Graph, *, how: Any, start: Any
    ) -> dict[str, Array]:
        """Return outputs as differentiable functions of batch and parameters.

        Args:
            how: of the type of `default`.
            start: a state to start from, such as that of the geometry before.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Explicit:
    """Outputs are one evaluation of the module."""

    default: None = None

    def outputs(
        self,
        module: nn.Module,
        params: Parameters,
        graph: Graph,
        *,
        how: None = None,
        start: None = None,
    ) -> dict[str, Array]:
        """Return what the module computes."""
        return module.apply({"params": params}, graph)


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family with all that is to be said about it.

    Of module, settings, `solve` and `initialise` the `late.place` may be given, so that what
    computes is imported with the first model of the family.
    """

    name: str
    """Value of the option ``model``."""
    module: type[nn.Module] = late_field()
    """``module(settings)`` is the model."""
    settings: type[FamilySettings] = late_field(FamilySettings)
    """Type of `ModelSettings.own`."""
    stored_as: str | None = None
    """Key of the own settings in model files; None if all of them are `stored_flat`."""
    stored_flat: tuple[str, ...] = ()
    """Own settings that model files hold beside those of all models."""
    max_l: int | None = None
    """Highest degree of its multipoles; None for families without charges."""
    options: tuple[type[OptionGroup], ...] = ()
    """Options of training that matter to it, beside those of all families."""
    groups: Mapping[str, ParameterGroup] = dataclasses.field(default_factory=dict)
    """Optimiser group of the parameters whose path begins with a pattern."""
    backbone: str = DEFAULT_BACKBONE
    """Backbone of configurations that name none."""
    needs: frozenset[Offer] = frozenset()
    """What it needs of a backbone beyond features of atoms."""
    solve: Solve = late_field(Explicit())
    outputs: tuple[str, ...] = ()
    """Names of its outputs beside the `ENERGIES` and, with charges, the `DENSITY`."""
    responds_to_field: bool = False
    """Whether its multipoles depend on the external field."""
    formal_charges: bool = False
    """Whether its own settings hold ``formal_charges`` of each element, or None for the data's."""
    sources: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Pattern of the paths of parameters that its multipoles of each degree are linear in, without
    potential."""
    mirror: str | None = None
    """Pattern of the paths of parameters whose opposites give the opposite multipoles at the same
    energies, where nothing else tells their sign; ``LAST`` stands for the last map of a readout of
    the backbone. None where there is no such symmetry."""
    silent: str | None = None
    """Pattern of those that begin at zero if a training starts from a model of another family."""
    initialise: Callable[[Parameters, Any], Parameters] | None = late_field(None)
    """From random parameters and options to those that training starts with."""

    @property
    def is_charged(self) -> bool:
        """Whether it has multipoles, and therefore electrostatic settings."""
        return self.max_l is not None

    @property
    def is_self_consistent(self) -> bool:
        """Whether its multipoles answer the potential that they cause."""
        return self.solve.default is not None

    def store(self, own: FamilySettings) -> dict[str, Any]:
        """Return own settings as entries of a model file."""
        values = dataclasses.asdict(own)
        flat = {name: values.pop(name) for name in self.stored_flat}
        return flat if self.stored_as is None else flat | {self.stored_as: values}

    def restore(self, entries: dict[str, Any]) -> FamilySettings:
        """Take own settings out of the entries of a model file.

        Raises:
            ValueError: they are missing or invalid.
        """
        flat = {name: entries.pop(name) for name in self.stored_flat if name in entries}
        nested = {} if self.stored_as is None else entries.pop(self.stored_as, None)
        if nested is None:
            raise ValueError(f"model {self.name}: expected settings {self.stored_as!r}, found none")
        return self.settings(**{name: as_tuples(it) for name, it in (flat | nested).items()})

    def check(self, settings: ModelSettings) -> None:
        """Refuse settings that do not make a model of this family.

        Raises:
            ValueError: a part is missing, does not belong to the family, or does not fit.
        """
        if type(settings.own) is not self.settings:
            needs = f"needs {self.settings.__name__} as its own settings"
            if self.settings is FamilySettings:
                needs = "has no settings of its own"
            raise ValueError(f"model {self.name} {needs}, found {type(settings.own).__name__}")
        electrostatics = settings.electrostatics
        if self.max_l is None and electrostatics is not None:
            raise ValueError(f"model {self.name} has no electrostatic settings")
        if self.max_l is not None and electrostatics is None:
            raise ValueError(f"model {self.name} needs electrostatic settings")
        if self.max_l is not None and settings.density.max_l > self.max_l:
            raise ValueError(
                f"model {self.name}: expected charges only (max_l {self.max_l}), "
                f"found max_l {settings.density.max_l}"
            )
        missing = self.needs - settings.backbone_offers
        if electrostatics is not None and electrostatics.max_l > 0:
            missing |= {Offer.DEGREES} - settings.backbone_offers
        if missing:
            raise ValueError(
                f"model {self.name} needs a backbone with {', '.join(sorted(missing))}, found "
                f"{settings.backbone.name}, which has none"
            )
        settings.own.check_model(settings)


FAMILIES: Registry[Family] = Registry("model", modules=("mace_scf_jax.models.families",))
"""All families by name; plugins add theirs."""


def families_with(group: type[OptionGroup]) -> tuple[str, ...]:
    """Return the names of the families that the options of a group matter to."""
    return tuple(name for name, family in FAMILIES.items() if group in family.options)
