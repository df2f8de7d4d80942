"""Weights of a new model from those of the model that it starts from."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.backbones.backbone import BACKBONES
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.models import build
from mace_scf_jax.models.one_head import parameters_of_heads
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.loop.modes import in_double_precision
from mace_scf_jax.training.optimise.parameter_groups import Parameters, parameter_name
from mace_scf_jax.training.start.start_model import StartModel

logger = logging.getLogger(__name__)

_BACKBONE = "backbone/"
_ENERGY_READOUTS = r"backbone/readout_\d+/linear/"
"""Last maps of the energy readouts: the energies of the layers are linear in them."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What became of every array: names of arrays of the new model, and of the start model."""

    copied: tuple[str, ...]
    cut: tuple[str, ...]
    """Copied for the elements of the new model."""
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    """Arrays of the start model that the new one has no place for."""

    @property
    def taken_over(self) -> frozenset[str]:
        """Names of arrays that are those of the start model, whole or cut."""
        return frozenset((*self.copied, *self.cut))

    def describe(self) -> str:
        """Tell it in one line."""
        told = f"{len(self.copied)} arrays copied, {len(self.cut)} cut to the elements of the data"
        for what, names in (("new", self.new), ("left out", self.dropped)):
            told += f", {len(names)} {what}"
            if names:
                told += f" ({', '.join(dict.fromkeys(_module(name) for name in names))})"
        return told


def start_weights(
    start: StartModel, settings: ModelSettings, drawn: Parameters
) -> tuple[Parameters, Provenance]:
    """Put the weights of the start model in the places of the same names.

    Names are paths: those of the backbone mean the same in all families, others within one family.
    An array whose shapes differ in the number of elements is cut to those of the new model. Without
    scale and shift, which other families lack, the energy readouts are scaled. With several heads
    all begin as that of the start model.

    Args:
        settings: of the new model.
        drawn: its random parameters.

    Returns:
        The parameters, and what became of every array.

    Raises:
        ConfigurationError: an array has another shape for another reason.
    """
    kept = np.array([start.settings.elements.index(z) for z in settings.elements])
    known = _flat(
        parameters_of_heads(start.parameters, len(settings.heads))
        if settings.heads
        else start.parameters
    )
    is_same_family = start.is_of(settings.family)
    scale, _ = start.scale_and_shift(settings.family)
    found: dict[str, list[str]] = {"copied": [], "cut": [], "new": []}

    def value(path: tuple[Any, ...], random: Array | np.ndarray) -> Array | np.ndarray:
        name = parameter_name(path)
        if name not in known or not (is_same_family or name.startswith(_BACKBONE)):
            found["new"].append(name)
            return random
        values = of_elements(known[name], name, random.shape, kept, start.settings)
        if values.shape != random.shape:
            raise ConfigurationError(
                f"option 'start_from': found {name} of the shape {known[name].shape}, expected "
                f"{random.shape}"
            )
        found["copied" if values is known[name] else "cut"].append(name)
        if scale != 1.0 and re.match(_ENERGY_READOUTS, name):
            values = scale * values
        return jnp.asarray(values, random.dtype)

    parameters = jax.tree_util.tree_map_with_path(value, drawn)
    dropped = [name for name in known if name not in {*found["copied"], *found["cut"]}]
    provenance = Provenance(
        **{how: tuple(names) for how, names in found.items()}, dropped=tuple(dropped)
    )
    symbols = ", ".join(chemical_symbols[z] for z in settings.elements)
    logger.info("Weights of the start model for %s: %s", symbols, provenance.describe())
    return parameters, provenance


def with_new_elements(
    start: StartModel, like: Mapping[int, int], example: Configuration
) -> StartModel:
    """Return the start model with elements that begin as others that it knows.

    Args:
        like: of each new element one of the start model.
        example: any structure of these elements; only its shapes matter.

    Raises:
        ConfigurationError: the start model cannot have more elements.
    """
    elements = tuple(sorted({*start.settings.elements, *like}))
    try:
        settings = start.settings.with_elements(elements, like)
    except ValueError as error:
        raise ConfigurationError(f"option 'new_elements': {error}") from None
    models = [like.get(element, element) for element in elements]
    kept = np.array([start.settings.elements.index(element) for element in models])
    unprepared = Model(settings, {"weights": np.zeros(1)})
    (batch,) = unprepared.batches([unprepared.prepare(example)])
    module, key = build(settings), jax.random.key(0)
    shapes = jax.eval_shape(module.init, key, in_double_precision(batch.graph))["params"]
    known = _flat(start.parameters)

    def value(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        name = parameter_name(path)
        return of_elements(known[name], name, shape.shape, kept, start.settings)

    parameters = jax.tree_util.tree_map_with_path(value, shapes)
    told = (f"{chemical_symbols[new]} as {chemical_symbols[old]}" for new, old in like.items())
    logger.info("New elements of the start model: %s", ", ".join(told))
    return StartModel(settings, parameters)


def of_elements(
    values: np.ndarray,
    name: str,
    shape: tuple[int, ...],
    kept: np.ndarray,
    settings: ModelSettings,
) -> np.ndarray:
    """Return weights for other elements, such that the maps of each element stay the same.

    The axes of elements are those of another length; weights without any are returned themselves.

    Args:
        values: of the start model.
        name: their path.
        shape: that they are to have.
        kept: for each new element the position of the one whose weights it has.
        settings: of the start model.
    """
    before = values
    lengths = (len(settings.elements), len(kept))
    for axis, pair in enumerate(zip(before.shape, shape, strict=False)):
        if pair == lengths and lengths[0] != lengths[1]:
            values = np.take(values, kept, axis=axis)
    unscaled = BACKBONES[settings.backbone.name].unscaled_by_element
    is_plain = unscaled is not None and re.match(_BACKBONE + unscaled, name)
    if values is before or is_plain:
        return values
    return values * np.sqrt(lengths[1] / lengths[0])


def _flat(parameters: Parameters) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {parameter_name(path): np.asarray(leaf) for path, leaf in leaves}


def _module(name: str) -> str:
    """The part of the network that an array is of."""
    return "/".join(name.split("/")[:2]) if name.startswith(_BACKBONE) else name.split("/")[0]
