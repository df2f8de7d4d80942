"""What a loss term is, and the weighted means that all of them are made of.

Per-entry squared errors are multiplied by the weight of the configuration and by the weight of the
property (zero where the label is missing), summed, and divided by the number of real entries.
Weights are therefore not part of the denominator: a configuration without a label still counts as
one entry, as in the PyTorch reference. Padding atoms and graphs never count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.graph import Graph

Prediction = Mapping[str, Array]
Loss = Float[Array, ""]


class LossError(ValueError):
    """A loss term is unknown, or the model or the data lack what it needs."""


class Mean(NamedTuple):
    """A mean whose two parts can still be summed over devices that have a part of a batch each."""

    total: Loss
    """Sum over the entries."""
    count: Loss
    """Number of entries."""

    def value(self) -> Loss:
        """The mean; 0 without entries."""
        return self.total / jnp.maximum(self.count, jnp.ones_like(self.count))


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One term of the loss: its formula and what it needs."""

    name: str
    function: Callable[..., Mean]
    """Of a prediction and a batch, and of the options if the term has any."""
    description: str
    predictions: tuple[str, ...]
    """Model outputs that the term reads."""
    labels: tuple[str, ...] = ()
    """Labels that the term reads; at least one training configuration must have each."""
    options: type[Any] | None = None
    """Frozen dataclass of the options; all have defaults."""


def finite_number(name: str, value: object) -> float:
    """A finite number; text is taken too, because YAML 1.1 reads ``1e-3`` as text.

    Raises:
        ValueError: it is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, found {value!r}")
    return number


def atoms_per_graph(graph: Graph) -> Float[Array, "graphs"]:
    """Number of atoms of each graph; 1 for graphs without real atoms."""
    counts = graph.sum_atoms(jnp.ones_like(graph.positions[:, 0]))
    return jnp.where(counts > 0.0, counts, jnp.ones_like(counts))


def property_weight(graph: Graph, label: str) -> Float[Array, "graphs"]:
    """Weight of the configuration times that of the label."""
    return graph.config_weight * graph.weights[label]


def mean(values: Float[Array, "entries *rest"], mask: Bool[Array, "entries *leading"]) -> Mean:
    """Mean over the elements that the mask keeps.

    Args:
        values: anything where the mask is False.
        mask: for each entry, or for the leading axes of each entry.
    """
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    real = jnp.broadcast_to(mask, values.shape)
    return Mean(
        total=jnp.sum(jnp.where(real, values, jnp.zeros_like(values))),
        count=jnp.sum(real.astype(values.dtype)),
    )
