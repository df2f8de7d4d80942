"""The model that a training starts from: what it decides of the new one."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.backbones.backbone import as_tuples
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.models.electrostatics import electrostatics_options
from mace_scf_jax.models.model_file import ModelFileError, load_model_file
from mace_scf_jax.models.one_head import parameters_of_head, place_of_head, settings_of_head
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.options.values import none_if_text
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.predict.suitability import UnusedInputWarning

Parameters = dict[str, Any]

START, ESTIMATED = "start", "estimated"
"""Words for energies of isolated atoms that depend on the start model."""
_REPORTS = {"scf_convergence_summary", "skip_scf_convergence_summary"}
"""Options of families about what is told at the end."""
_ADVICE = {
    "conserve_charge": "with another way its charges would not begin as they are; leave it out, or "
    "start from what `Model.with_surplus` makes of it"
}
"""What to do about options that contradict the start model, beside leaving them out."""
LEARNING_RATE = 1e-4
"""Default of a training that starts from another model: a larger one would undo what it knows."""


@dataclasses.dataclass(frozen=True)
class StartModel:
    """A model to start from.

    Raises:
        ConfigurationError: by `read`, if there is no such model.
    """

    settings: ModelSettings
    parameters: Parameters
    like: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Elements that it is to know beside its own, and those of its own that they are like."""

    @classmethod
    def read(cls, path: str, head: str | None = None) -> StartModel:
        """Read a model file, by its path or the name of a public model.

        Args:
            head: to take of a model of several.

        Raises:
            ConfigurationError: there is none, or it is no model, or has no such head.
        """
        try:
            content = load_model_file(path)
            settings = ModelSettings.of_file(content)
        except (ModelFileError, ValueError) as error:
            raise ConfigurationError(f"option 'start_from': {error}") from None
        if not settings.heads:
            if head is not None:
                raise ConfigurationError(
                    f"option 'start_head': found {head!r}, but the start model has one head only"
                )
            return cls(settings, content.parameters)
        if head is None:
            raise ConfigurationError(
                "option 'start_head': expected one of the heads of the start model, "
                f"{', '.join(settings.heads)}"
            )
        try:
            place = place_of_head(settings.heads, head)
        except ValueError as error:
            raise ConfigurationError(f"option 'start_head': {error}") from None
        parameters = parameters_of_head(content.parameters, settings, place)
        return cls(settings_of_head(settings, place), parameters)

    @classmethod
    def of(cls, options: Any) -> StartModel | None:
        """Read the model that the options of a run name, if they do."""
        if options.start_from is None:
            return None
        start, like = cls.read(options.start_from, options.start_head), options.new_elements
        known = start.settings.elements
        problems = [
            f"the start model knows {chemical_symbols[new]}" for new in like if new in known
        ]
        problems += [
            f"the start model does not know {chemical_symbols[old]}, as which "
            f"{chemical_symbols[new]} is to begin"
            for new, old in like.items()
            if old not in known
        ]
        if problems:
            raise ConfigurationError(*(f"option 'new_elements': {it}" for it in problems))
        return dataclasses.replace(start, like=like)

    def is_of(self, family: str) -> bool:
        """Whether it is of this family, so that everything is taken over."""
        return self.settings.family == family

    def options(self, family: str) -> dict[str, Any]:
        """Return options of training that it decides.

        Args:
            family: of the new model.

        Raises:
            ConfigurationError: no new model can have its backbone.
        """
        settings = self.settings
        try:
            values = {"backbone": settings.backbone.name, **settings.backbone.as_options()}
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if self.is_of(family):
            values |= settings.own.as_options(settings.elements)
            if settings.electrostatics is not None:
                values |= electrostatics_options(settings.electrostatics)
        if settings.dispersion is not None:
            values |= {
                "dispersion": settings.dispersion.method,
                "dispersion_functional": settings.dispersion.functional,
                "dispersion_cutoff": settings.dispersion.cutoff,
            }
        return values

    def electrostatics(
        self, family: str, asked: ElectrostaticsSettings | None
    ) -> ElectrostaticsSettings | None:
        """Return the electrostatics of the new model.

        Args:
            family: of the new model.
            asked: what the options describe.
        """
        own = self.settings.electrostatics
        if not self.is_of(family) or own is None or asked is None:
            return asked
        return dataclasses.replace(own, sums=asked.sums, mesh_accuracy=asked.mesh_accuracy)

    def elements(self, of_data: tuple[int, ...], which: str) -> tuple[int, ...]:
        """Return the elements of the new model.

        Args:
            of_data: those of the data.
            which: ``data`` or ``all``.

        Raises:
            ConfigurationError: names elements of the data that the start model lacks.
        """
        known = self.settings.elements
        absent = [chemical_symbols[z] for z in of_data if z not in known]
        if absent:
            raise ConfigurationError(
                f"option 'start_from': the data have {', '.join(absent)}, which the start model "
                f"does not know; it knows {', '.join(chemical_symbols[z] for z in known)}; "
                f"new_elements: {{{absent[0]}: …}} names one of these as which it begins"
            )
        return known if which == "all" else of_data

    def predicted(
        self, configurations: Sequence[Configuration], *, forces: bool = True, stress: bool = False
    ) -> list[Prediction]:
        """Predict structures, in double precision.

        Args:
            forces: of every atom too.
            stress: of periodic structures too.

        Raises:
            DataError: the start model does not know their elements, or lacks inputs.
        """
        with warnings.catch_warnings():  # the new model may read more than the start model does
            warnings.simplefilter("ignore", UnusedInputWarning)
            structures = [self._model.prepare(entry) for entry in configurations]
        return self._model.predict_structures(structures, forces=forces, stress=stress)

    @functools.cached_property
    def _model(self) -> Model:
        parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), self.parameters)
        return Model(dataclasses.replace(self.settings, dispersion=None), parameters)

    @property
    def atomic_energies(self) -> dict[int, float]:
        """Energy of an isolated atom of each element in eV."""
        own = dict(zip(self.settings.elements, self.settings.atomic_energies, strict=True))
        return own | {new: own[old] for new, old in self.like.items()}

    def for_elements(self, elements: tuple[int, ...]) -> ModelSettings:
        """Return its settings for some of its elements.

        Raises:
            ConfigurationError: it cannot have fewer.
        """
        try:
            chosen = self.settings.with_elements(elements)
        except ValueError as error:
            raise ConfigurationError(
                f"option 'start_elements': {error}; give start_elements: all"
            ) from None
        return dataclasses.replace(chosen, dispersion=None)  # which no weights know of

    def scale_and_shift(self, family: str) -> tuple[float, float]:
        """What multiplies its readouts and is added to every atom, in eV, in another family."""
        if self.is_of(family):
            return 1.0, 0.0
        own = self.settings.own
        return getattr(own, "scale", 1.0), getattr(own, "shift", 0.0)

    def new_settings(self, options: Any, training: TrainingSet) -> ModelSettings:
        """Return the settings of the new model.

        Args:
            options: of the run.
            training: what is measured on; its elements are those of the new model.

        Raises:
            ConfigurationError: options and training set do not go together.
        """
        family, start = options.family, self.for_elements(training.elements)
        scale, shift = self.scale_and_shift(family.name)
        energies = as_tuples((np.array(training.atomic_energies) + shift).tolist())
        if self.is_of(family.name):
            return dataclasses.replace(
                start,
                backbone=start.backbone.started(heads=training.heads),
                atomic_energies=energies,
                electrostatics=training.electrostatics,
            )
        own = family.settings.from_options(options, training)
        if hasattr(own, "scale"):  # measured on interaction energies that readouts make already
            own = dataclasses.replace(own, scale=1.0, shift=0.0)
        return ModelSettings(
            family=family.name,
            backbone=start.backbone.started(
                heads=training.heads, scale=scale, all_degrees=family.is_charged
            ),
            atomic_energies=energies,
            electrostatics=training.electrostatics,
            own=own,
        )


def taken_over(given: Mapping[str, Any], *, families: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the start model decides and that were not given; nothing without start model.

    Args:
        given: options by name, of which ``start_from`` is one, as they are written.
        families: all families by name.

    Raises:
        ConfigurationError: there is no such model, or no new model can have its backbone.
    """
    path, head = (none_if_text(given.get(name)) for name in ("start_from", "start_head"))
    if path is None:
        return {}
    start = StartModel.read(str(path), head)
    family = given.get("model", start.settings.family)
    if family not in families:
        return {}  # another problem, which is told
    values = {"model": family, **start.options(family)}
    schedule = given.get("train_schedule")
    stages = schedule.values() if isinstance(schedule, Mapping) else ()
    if not all(isinstance(stage, Mapping) and "lr" in stage for stage in stages):
        values["lr"] = LEARNING_RATE
    if "num_channels" in given or "max_L" in given:
        values.pop("hidden_irreps", None)
    return {name: value for name, value in values.items() if name not in given}


def contradictions(options: Any, given: Collection[str]) -> list[str]:
    """Sentences on options that were given and are not those of the start model.

    Args:
        options: all of them, as they are read.
        given: names of those that were written.
    """
    start, fields = StartModel.of(options), type(options).model_fields
    assert start is not None
    given = {name for name in given if name in fields}
    changed = {name for name in given if getattr(options, name) != fields[name].default}
    expected = start.options(options.model)
    found = {name: getattr(options, name) for name in expected if name in given}
    if {"num_channels", "max_L"} & set(given):
        found["hidden_irreps"] = options.irreps
    same_family = start.is_of(options.model)
    of_training = _REPORTS | {group.decay for group in options.family.groups.values()}
    measured = {
        name
        for group in options.family.options
        for name in group.model_fields
        if same_family and name in changed and name not in expected and name not in of_training
    }
    problems = [
        f"option {name!r}: the start model has {_text(expected[name])}, found {_text(value)}; "
        f"{_ADVICE.get(name, 'leave it out')}"
        for name, value in found.items()
        if _text(value) != _text(expected[name])
    ]
    problems += [
        f"option {name!r}: is decided by the start model, which is of the same family; leave it out"
        for name in sorted(measured)
    ]
    if "start_charge" in changed and not options.family.sources:
        problems.append(
            f"option 'start_charge': {options.model} has no charges that are scaled; leave it out"
        )
    elif "start_charge" in changed and same_family:
        problems.append(
            "option 'start_charge': charges are those of the start model, which is of the same "
            "family; leave it out"
        )
    return problems


def _text(value: Any) -> str:
    """A value in the same words however it is written."""
    if isinstance(value, str):
        return value.replace(" ", "")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)
