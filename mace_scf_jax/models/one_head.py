"""One head out of a model of several, and several out of one: models of the same energies.

Readouts keep heads apart by setting hidden channels of the others to zero, so that what belongs to
one is a part of the weights. Linear maps divide by the root of all incoming channels, those of
the other heads included.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.registry import nearest

_READOUTS = re.compile(r"readout_\d+|embedding_readout")
"""Names of the parameters that have a part for each head."""


def place_of_head(heads: tuple[str, ...], name: str) -> int:
    """Return the place of a head.

    Raises:
        ValueError: there is no such head.
    """
    if name not in heads:
        guess = nearest(name, heads)
        hint = "" if guess is None else f"; did you mean {guess!r}?"
        raise ValueError(f"head: expected one of {', '.join(heads)}, found {name!r}{hint}")
    return heads.index(name)


def settings_of_head(settings: ModelSettings, head: int) -> ModelSettings:
    """Return the settings of the model of one head.

    Args:
        head: place of the head.
    """
    own = {
        field.name: getattr(settings.own, field.name)[head]
        for field in dataclasses.fields(settings.own)
        if field.name in ("scale", "shift") and isinstance(getattr(settings.own, field.name), tuple)
    }
    return dataclasses.replace(
        settings,
        backbone=dataclasses.replace(settings.backbone, heads=()),  # type: ignore[type-var]
        atomic_energies=settings.atomic_energies[head],  # type: ignore[arg-type]
        own=dataclasses.replace(settings.own, **own),
    )


def parameters_of_head(
    parameters: Mapping[str, Any], settings: ModelSettings, head: int
) -> dict[str, Any]:
    """Return the parameters of the model of one head.

    Args:
        settings: of the whole model.
        head: place of the head.
    """
    heads = len(settings.heads)
    backbone = {
        name: _of_readout(entry, heads, head) if _READOUTS.fullmatch(name) else entry
        for name, entry in parameters["backbone"].items()
    }
    return {**parameters, "backbone": backbone}


def parameters_of_heads(parameters: Mapping[str, Any], heads: int) -> dict[str, Any]:
    """Return the parameters of a model whose heads all are that of a model of one.

    Args:
        parameters: of the model of one head.
        heads: number of heads.
    """
    backbone = {
        name: _repeated(entry, heads) if _READOUTS.fullmatch(name) else entry
        for name, entry in parameters["backbone"].items()
    }
    return {**parameters, "backbone": backbone}


def _repeated(readout: Mapping[str, Any], heads: int) -> dict[str, Any]:
    """Return the parameters of a readout that `_of_readout` takes apart."""
    is_hidden = "hidden_0" in readout
    parts: dict[str, Any] = {}
    for name, layer in readout.items():
        inputs = heads if is_hidden and name != "hidden_0" else 1

        def whole(values: Any, inputs: int = inputs) -> np.ndarray:
            values = np.asarray(values)
            if values.ndim == 1:
                return np.tile(values, heads)
            blocks = np.zeros((inputs, values.shape[0], heads, values.shape[1]), values.dtype)
            for head in range(heads):
                blocks[head if inputs > 1 else 0, :, head] = values * math.sqrt(inputs)
            return blocks.reshape(inputs * values.shape[0], heads * values.shape[1])

        parts[name] = jax.tree.map(whole, layer)
    return parts


def _of_readout(readout: Mapping[str, Any], heads: int, head: int) -> dict[str, Any]:
    """Return the part of one head in the parameters of an energy readout."""
    is_hidden = "hidden_0" in readout
    parts: dict[str, Any] = {}
    for name, layer in readout.items():
        inputs = heads if is_hidden and name != "hidden_0" else 1

        def own(values: Any, inputs: int = inputs) -> Any:
            outputs = values.shape[-1] // heads
            if values.ndim == 1:
                return values.reshape(heads, outputs)[head]
            blocks = values.reshape(inputs, -1, heads, outputs)
            return blocks[head if inputs > 1 else 0, :, head] / math.sqrt(inputs)

        parts[name] = jax.tree.map(own, layer)
    return parts
