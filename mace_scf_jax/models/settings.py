"""Everything that defines a model but its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import flax.linen as nn
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.backbones import BACKBONES, BackboneSettings, Offer, settings_from_dict
from mace_scf_jax.backbones.backbone import as_tuples
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.dispersion.settings import DispersionSettings
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.models.family import FAMILIES, Family, FamilySettings
from mace_scf_jax.models.model_file import ModelFile
from mace_scf_jax.models.outputs import DENSITY, DISPERSION, DISTANCES, ENERGIES
from mace_scf_jax.plugins import advice_on_plugins

Own = TypeVar("Own", bound=FamilySettings, covariant=True)

_IN_EVERY_FILE: dict[str, Any] = {
    "electrostatics": None,
    "scale": 1.0,
    "shift": 0.0,
    "formal_charges": None,
    "split_charges": None,
    "charge_equilibration": None,
    "energy_functional": None,
    "fixed_point": None,
}
"""Entries of the first version of the format, where families could not bring their own."""


@dataclasses.dataclass(frozen=True)
class ModelSettings(Generic[Own]):
    """A model family with its sizes, choices and constants.

    Raises:
        ValueError: the number of atomic energies differs from the number of elements.
    """

    family: str
    """Name in `mace_scf_jax.models.FAMILIES`."""
    backbone: BackboneSettings
    atomic_energies: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """Energy E0 of an isolated atom of each element in eV; with several heads a row for each."""
    electrostatics: ElectrostaticsSettings | None = None
    """None for families without charges."""
    own: Own = None  # type: ignore[assignment]
    """What only this family has; by default what the family has by default."""
    dispersion: DispersionSettings | None = None
    """What is added to the energy that was learned; None for nothing."""

    def __post_init__(self) -> None:
        if self.own is None:
            object.__setattr__(self, "own", self.of_family.settings())
        energies = np.array(self.atomic_energies, dtype=np.float64)
        object.__setattr__(self, "atomic_energies", as_tuples(energies.tolist()))
        expected = (*([len(self.heads)] if self.heads else []), len(self.backbone.elements))
        if energies.shape != expected:
            of_heads = f" and each of the heads {', '.join(self.heads)}" if self.heads else ""
            raise ValueError(
                f"atomic_energies: expected one energy for each of the elements "
                f"{self.backbone.elements}{of_heads}, found {' x '.join(map(str, energies.shape))}"
            )

    @classmethod
    def of_file(cls, content: ModelFile) -> ModelSettings:
        """Return the settings that a model file holds.

        Raises:
            ValueError: they describe no model; names plugins that the model was trained with and
                that are not loaded.
        """
        try:
            return cls.from_dict(dict(content.settings))
        except ValueError as error:
            named = content.record.get("training_options", {}).get("plugins", ())
            raise ValueError(f"{error}{advice_on_plugins(named)}") from error

    @property
    def heads(self) -> tuple[str, ...]:
        """Levels of theory that energies are told apart by; empty for a single one."""
        return getattr(self.backbone, "heads", ())

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return self.backbone.elements

    def with_elements(
        self, elements: tuple[int, ...], like: Mapping[int, int] | None = None
    ) -> ModelSettings[Own]:
        """Return the settings of a model of one head for some of the elements.

        Args:
            elements: atomic numbers, ascending.
            like: of elements that the model lacks, those of it that they are to be like.

        Raises:
            ValueError: names elements that the model lacks; or it cannot have fewer.
        """
        models = [(like or {}).get(z, z) for z in elements]
        unknown = [chemical_symbols[z] for z in models if z not in self.elements]
        if unknown:
            known = ", ".join(chemical_symbols[z] for z in self.elements)
            raise ValueError(f"elements {', '.join(unknown)}: the model has only {known}")
        kept = [self.elements.index(element) for element in models]
        return dataclasses.replace(
            self,
            backbone=self.backbone.with_elements(elements),
            atomic_energies=tuple(float(self.atomic_energies[index]) for index in kept),  # type: ignore[arg-type]
            own=self.own.with_elements(kept),  # type: ignore[arg-type]  # of the same family
        )

    @property
    def of_family(self) -> Family:
        """The family.

        Raises:
            UnknownNameError: there is no such family.
        """
        return FAMILIES[self.family]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs but the derivatives of the energy."""
        family = self.of_family
        density = DENSITY if family.is_charged else ()
        distances = DISTANCES if self.backbone.least_distance > 0.0 else ()
        dispersion = DISPERSION if self.dispersion is not None else ()
        return (*ENERGIES, *density, *family.outputs, *self.own.outputs, *distances, *dispersion)

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """Inputs of a structure that are read beside total charge and field, if there are charges.

        Structures that lack them have what stands for a missing value.
        """
        return tuple(dict.fromkeys((*self.backbone.inputs, *self.own.graph_inputs)))

    @property
    def backbone_offers(self) -> frozenset[Offer]:
        """What the backbone can do beyond features of atoms."""
        return BACKBONES[self.backbone.name].offers

    @property
    def density(self) -> ElectrostaticsSettings:
        """The electrostatics of a family with charges.

        Raises:
            ValueError: the family has none.
        """
        if self.electrostatics is None:
            raise ValueError(f"model {self.family} has no electrostatic settings")
        return self.electrostatics

    @property
    def kspace_cutoff(self) -> float | None:
        """Radius in 1/Å up to which structures need reciprocal indices; None if they need none."""
        return None if self.electrostatics is None else self.electrostatics.indices_cutoff

    @property
    def tails(self) -> float | None:
        """`ElectrostaticsSettings.tails`; None without charges."""
        return None if self.electrostatics is None else self.electrostatics.tails

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` makes the same settings."""
        entries = {
            "family": self.family,
            "backbone": self.backbone.to_dict(),
            "atomic_energies": self.atomic_energies,
        }
        if self.electrostatics is not None:
            entries["electrostatics"] = dataclasses.asdict(self.electrostatics)
        if self.dispersion is not None:
            entries["dispersion"] = dataclasses.asdict(self.dispersion)
        return _IN_EVERY_FILE | entries | self.of_family.store(self.own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSettings:
        """Return the settings that plain data describe, such as a JSON object.

        Raises:
            ValueError: a field is missing, unknown or invalid.
        """
        try:
            values = dict(data)
            own = FAMILIES[values["family"]].restore(values)
            for name, nothing in _IN_EVERY_FILE.items():
                if name != "electrostatics" and values.get(name) == nothing:
                    values.pop(name, None)
            values["backbone"] = settings_from_dict(values["backbone"])
            if values.get("electrostatics") is not None:
                values["electrostatics"] = ElectrostaticsSettings.from_dict(
                    values["electrostatics"]
                )
            if values.get("dispersion") is not None:
                values["dispersion"] = DispersionSettings(**values["dispersion"])
            return cls(**values, own=own)  # type: ignore[arg-type]  # of any family
        except (TypeError, KeyError) as error:
            raise ValueError(f"model settings: {error}") from error


def build(settings: ModelSettings) -> nn.Module:
    """Return the Flax module of a model.

    Raises:
        ValueError: an unknown family, or settings that are missing, do not belong to it or do not
            fit.
    """
    family = settings.of_family
    family.check(settings)
    return family.module(settings)


def required_inputs(settings: ModelSettings) -> tuple[str, ...]:
    """Return the names of the per-atom inputs that every structure has to come with."""
    return settings.own.inputs


def check_inputs(settings: ModelSettings, configuration: Configuration) -> None:
    """Refuse a structure without the per-atom inputs of a model.

    Raises:
        DataError: an input is missing or makes no sense, such as a formal charge outside the range
            in which it is expanded.
    """
    for name in settings.own.inputs:
        if name not in configuration.present:
            raise DataError(
                f"{configuration.location}: the model {settings.family} reads {name!r} of every "
                "atom from the data, found none (which array holds it: arrays_keys)"
            )
    settings.own.check_structure(configuration)
    settings.backbone.check_structure(configuration)
