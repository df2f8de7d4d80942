"""A closer look at gradients and parameters, every so many steps.

It is a part of the compiled training step, which looks only in the steps that are wanted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mace_scf_jax.training.loop.options import HISTOGRAMS, WatchOptions
from mace_scf_jax.training.optimise.parameter_groups import Parameters, group_labels

BINS = 64
GRADIENT_NORM = "grad/norm/"
PARAMETER_NORM = "param/norm/"

Histogram = tuple[Float[np.ndarray, "bins"], Float[np.ndarray, "edges"]]
"""Counts and edges, as of `numpy.histogram`."""


NOTHING_WATCHED = WatchOptions()


@dataclasses.dataclass(frozen=True)
class Watched:
    """What was seen in one step, before its update."""

    step: int
    """Number of the step within the run, from 0."""
    numbers: Mapping[str, float]
    histograms: Mapping[str, Histogram]
    """``gradients/<parameter group>``, ``parameters/<parameter group>``."""

    @classmethod
    def of(cls, seen: Mapping[str, Any]) -> Watched | None:
        """From the result of `watch` on the host; None if this step was not looked at."""
        if not seen or not seen["due"]:
            return None
        numbers = {name: float(value) for name, value in seen["numbers"].items()}
        return cls(int(seen["step"]), numbers, dict(seen["histograms"]))

    def groups_out_of_bounds(self) -> tuple[str, ...]:
        """Parameter groups whose gradient is not finite."""
        return tuple(
            name.removeprefix(GRADIENT_NORM)
            for name, value in self.numbers.items()
            if name.startswith(GRADIENT_NORM) and not math.isfinite(value)
        )


def watch(
    options: WatchOptions, gradient: Parameters, parameters: Parameters, step: Int[Array, ""]
) -> dict[str, Any]:
    """Look at a step if it is due, or if its gradient is not finite; within a traced function.

    Args:
        options: what to look at, and how often.
        gradient: of the loss, before clipping.
        parameters: before the update.
        step: number of the step within the run.

    Returns:
        Whether the step was looked at, and what was seen; empty if the options ask for nothing.
    """
    looks: dict[str, Callable[[], dict[str, Any]]] = {}
    if options.debug_log_grad_summary:
        looks["numbers"] = lambda: summary(gradient, parameters)
    if HISTOGRAMS[options.wandb_watch]:
        values = {"gradients": gradient, "parameters": parameters}
        watched = {name: values[name] for name in HISTOGRAMS[options.wandb_watch]}
        looks["histograms"] = lambda: _histograms(watched)
    if not looks:
        return {}

    def look() -> dict[str, Any]:
        return {name: function() for name, function in looks.items()}

    def nothing() -> dict[str, Any]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(look))

    due = (step % options.wandb_watch_log_freq == 0) | ~jnp.isfinite(optax.tree.norm(gradient))
    seen = jax.lax.cond(due, look, nothing)
    return {"due": due, "step": step, "numbers": {}, "histograms": {}} | seen


def summary(gradient: Parameters, parameters: Parameters) -> dict[str, Float[Array, ""]]:
    """Norms of the gradient and of the parameters.

    Args:
        gradient: of the loss.

    Returns:
        ``grad/global_norm``, ``param/global_norm``, ``grad/param_norm_ratio`` (one by the other),
        ``grad/global_max_abs`` (largest component), ``grad/nonfinite_count`` (components),
        ``grad/none_param_count`` (arrays whose gradient is zero throughout), and for each
        parameter group ``grad/norm/<group>`` and ``param/norm/<group>``.
    """
    leaves = jax.tree.leaves(gradient)
    dtype = leaves[0].dtype
    largest = jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves])
    gradient_norm, parameter_norm = optax.tree.norm(gradient), optax.tree.norm(parameters)
    return {
        "grad/global_norm": gradient_norm,
        "grad/global_max_abs": jnp.max(largest),
        "grad/nonfinite_count": sum(jnp.sum((~jnp.isfinite(g)).astype(dtype)) for g in leaves),
        "grad/none_param_count": jnp.sum((largest == 0.0).astype(dtype)),
        "param/global_norm": parameter_norm,
        "grad/param_norm_ratio": gradient_norm / parameter_norm,
        **{f"{GRADIENT_NORM}{group}": optax.tree.norm(v) for group, v in _groups(gradient)},
        **{f"{PARAMETER_NORM}{group}": optax.tree.norm(v) for group, v in _groups(parameters)},
    }


def _histograms(watched: Mapping[str, Parameters]) -> dict[str, tuple[Array, Array]]:
    """Counts and edges of all numbers of each parameter group."""
    return {
        f"{kind}/{group}": jnp.histogram(
            jnp.concatenate([jnp.ravel(value) for value in values]), bins=BINS
        )
        for kind, tree in watched.items()
        for group, values in _groups(tree)
    }


def _groups(tree: Parameters) -> list[tuple[str, list[Array]]]:
    """The arrays of each parameter group, by name."""
    groups: dict[str, list[Array]] = {}
    labels = jax.tree.leaves(group_labels(tree))
    for label, leaf in zip(labels, jax.tree.leaves(tree), strict=True):
        groups.setdefault(label, []).append(leaf)
    return sorted(groups.items())
