"""Activation functions scaled to unit second moment under a normal distribution, as in e3nn."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

SECOND_MOMENT_SCALE = {
    "silu": 1.6791767923989418,
    "tanh": 1.5937334472592695,
    "abs": 1.001110600838467,
    "sigmoid": 1.8467055342154763,
}
"""1/√⟨f(z)²⟩, z normal. e3nn estimates it from 10⁶ fixed random numbers; trained weights contain
that estimate, so its value is kept (the exact constant of silu is 1.67653…)."""

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "abs": jnp.abs,
    "sigmoid": jax.nn.sigmoid,
}

GATES = ("silu", "tanh", "abs", "None")
"""Values of the option ``gate``."""


def activation(name: str) -> Callable[[Array], Array]:
    """The activation of that name with unit second moment; ``None`` is the identity.

    Args:
        name: silu, tanh, abs, sigmoid or None.

    Raises:
        ValueError: an unknown name.
    """
    if name == "None":
        return lambda x: x
    if name not in _FUNCTIONS:
        raise ValueError(f"activation: expected one of {', '.join(_FUNCTIONS)}, found {name!r}")
    function, scale = _FUNCTIONS[name], SECOND_MOMENT_SCALE[name]
    return lambda x: scale * function(x)
