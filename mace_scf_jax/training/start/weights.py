"""Weights of a new model from those of the model that it starts from."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.models.one_head import parameters_of_heads
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.optimise.parameter_groups import Parameters, parameter_name
from mace_scf_jax.training.start.start_model import StartModel

logger = logging.getLogger(__name__)

_BACKBONE = "backbone/"
_ENERGY_READOUTS = r"backbone/readout_\d+/linear/"
"""Last maps of the energy readouts: the energies of the layers are linear in them."""
_NOT_NORMALISED = r".*/contraction/"
"""Weights of elements that are used as they are; maps by element divide theirs by the square root
of the number of elements."""


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
        values = known[name]
        for axis, (old, new) in enumerate(zip(values.shape, random.shape, strict=False)):
            if (old, new) == (len(start.settings.elements), len(kept)):
                values = np.take(values, kept, axis=axis) if old != new else values
        if values.shape != random.shape:
            raise ConfigurationError(
                f"option 'start_from': found {name} of the shape {known[name].shape}, expected "
                f"{random.shape}"
            )
        is_cut = values.shape != known[name].shape
        found["cut" if is_cut else "copied"].append(name)
        if is_cut and not re.match(_NOT_NORMALISED, name):
            values = values * np.sqrt(len(kept) / len(start.settings.elements))
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


def _flat(parameters: Parameters) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {parameter_name(path): np.asarray(leaf) for path, leaf in leaves}


def _module(name: str) -> str:
    """The part of the network that an array is of."""
    return "/".join(name.split("/")[:2]) if name.startswith(_BACKBONE) else name.split("/")[0]
