"""Random initial parameters of a Flax module, all drawn at once.

Flax draws each parameter by itself, where the module asks for it. Compiled, that is a generator of
random numbers for every parameter, which takes seconds. Here the module is only traced, parameters
of the kinds below are noted, and one generator then draws them all: the first numbers of a row are
those of a smaller parameter, because JAX's generator counts numbers one by one.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

RUN_ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a function that takes longer to compile than to run: half the time."""


class Kind(enum.Enum):
    """Where parameters come from."""

    NORMAL = enum.auto()
    """N(0, scale²)."""
    UNIFORM = enum.auto()
    """Between -scale and scale."""
    CONSTANT = enum.auto()
    """The scale itself."""


_GENERATORS = {Kind.NORMAL: jax.random.normal, Kind.UNIFORM: jax.random.uniform}


@dataclasses.dataclass(frozen=True)
class _Noted:
    """A parameter that is to be drawn."""

    shape: tuple[int, ...]
    kind: Kind
    scale: float
    stands_for: Array
    """What the module computes with while it is traced."""

    def of_standard(self, numbers: np.ndarray) -> np.ndarray:
        """The parameter from numbers of N(0, 1), or between 0 and 1."""
        own = numbers[: math.prod(self.shape)].reshape(self.shape)
        if self.kind is Kind.UNIFORM:
            own = np.maximum(own * (2.0 * self.scale) - self.scale, -self.scale)
        else:
            own = own * self.scale
        return np.asarray(own, self.stands_for.dtype)


_noted: contextvars.ContextVar[list[_Noted] | None] = contextvars.ContextVar("noted", default=None)


def _noting(kind: Kind, scale: float, alone: Callable[..., Array]) -> Callable[..., Array]:
    """An initialiser that is noted where `drawn_parameters` draws all at once."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float_) -> Array:
        noted = _noted.get()
        if noted is None:
            return alone(key, shape, dtype)
        noted.append(_Noted(shape, kind, scale, jnp.zeros(shape, dtype)))
        return noted[-1].stands_for

    return draw


def normal(deviation: float) -> Callable[..., Array]:
    """Return an initialiser that draws from N(0, deviation²).

    Args:
        deviation: standard deviation.
    """
    return _noting(Kind.NORMAL, deviation, nn.initializers.normal(deviation))


def uniform(bound: float) -> Callable[..., Array]:
    """Return an initialiser that draws between -bound and bound."""

    def alone(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return _noting(Kind.UNIFORM, bound, alone)


def constant(value: float) -> Callable[..., Array]:
    """Return an initialiser that draws nothing."""
    return _noting(Kind.CONSTANT, value, nn.initializers.constant(value))


unit_normal = normal(1.0)
"""Draws weights from N(0, 1)."""
zeros, ones = constant(0.0), constant(1.0)


def drawn_parameters(module: nn.Module, key: Array, *inputs: Any) -> dict[str, Any]:
    """Return the parameters that ``module.init(key, *inputs)`` makes.

    Args:
        key: of the random numbers.
        inputs: of the module; only shapes and precision of their arrays matter.
    """
    noted: list[_Noted] = []
    made: dict[str, Any] = {}

    def trace(*inputs: Any) -> None:
        token = _noted.set(noted)
        try:
            made.update(module.init(key, *inputs)["params"])
        finally:
            _noted.reset(token)

    jax.eval_shape(trace, *inputs)
    index = {id(each.stands_for): place for place, each in enumerate(noted)}
    leaves, structure = jax.tree.flatten(made)
    places = [index.get(id(leaf)) for leaf in leaves]
    keys = jax.tree.leaves(_Keys(_names(made)).init(key)["params"])
    of_drawn = [place for place, i in enumerate(places) if i is not None]
    numbers = _draw([keys[p] for p in of_drawn], [noted[places[p]] for p in of_drawn])
    others = _made_otherwise(module, key, inputs, [i is None for i in places])
    return structure.unflatten(next(others if i is None else numbers) for i in places)


def _draw(keys: Sequence[Array], wanted: Sequence[_Noted]) -> Iterator[np.ndarray]:
    """Draw parameters from their keys, those of one kind and similar size by one generator."""
    groups: dict[tuple[Kind, int], list[int]] = {}
    for place, each in enumerate(wanted):
        if each.kind in _GENERATORS:
            groups.setdefault((each.kind, _room(math.prod(each.shape))), []).append(place)

    def draw(grouped: Sequence[Array]) -> list[Array]:
        return [
            jax.vmap(lambda key, kind=kind, room=room: _GENERATORS[kind](key, (room,)))(of_group)
            for (kind, room), of_group in zip(groups, grouped, strict=True)
        ]

    grouped = [jnp.stack([keys[i] for i in places]) for places in groups.values()]
    numbers = jax.device_get(jax.jit(draw).lower(grouped).compile(RUN_ONCE)(grouped))
    rows = {
        place: row
        for of_group, places in zip(numbers, groups.values(), strict=True)
        for place, row in zip(places, of_group, strict=True)
    }
    for place, each in enumerate(wanted):
        yield each.of_standard(rows[place] if place in rows else np.ones(math.prod(each.shape)))


def _room(size: int) -> int:
    """The size of the rows that hold so many numbers; of a few kinds."""
    room = 512
    while room < size:
        room *= 8
    return room


def _made_otherwise(
    module: nn.Module, key: Array, inputs: tuple[Any, ...], chosen: Sequence[bool]
) -> Iterator[Array]:
    """Parameters of other kinds, each by its own initialiser."""

    def make(key: Array, inputs: tuple[Any, ...]) -> list[Array]:
        leaves = jax.tree.leaves(module.init(key, *inputs)["params"])
        return [leaf for leaf, is_chosen in zip(leaves, chosen, strict=True) if is_chosen]

    if any(chosen):
        yield from jax.jit(make).lower(key, inputs).compile(RUN_ONCE)(key, inputs)


class _Keys(nn.Module):
    """The keys that Flax gives to the parameters of a module of these names."""

    names: tuple[tuple[str, Any], ...]

    @nn.compact
    def __call__(self) -> None:
        for name, within in self.names:
            if within is None:
                self.param(name, lambda key: key)
            else:
                _Keys(within, name=name)()


def _names(tree: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Names in the order in which they were made, which Flax counts."""
    return tuple(
        (name, _names(value) if isinstance(value, Mapping) else None)
        for name, value in tree.items()
    )
