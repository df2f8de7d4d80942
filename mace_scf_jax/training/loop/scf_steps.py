"""The steps of self-consistent solutions as lines of the debug log.

For every batch one line per step, ``step 3, 2 of 10 structures, abs_change(s)=1.2e-04``: how many
structures are still on their way, and the largest change among them; then one line on the end,
``SCF converged at step 3, abs_change(s)=8.1e-07``. These are the lines of the PyTorch reference,
whose structures all end together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.scf_counts import SCFCounts

logger = logging.getLogger(__name__)


def scf_steps(prediction: Mapping[str, Array], graph: Graph, devices: Devices) -> dict[str, Array]:
    """What the steps of a batch were like; empty where nothing was solved for.

    Args:
        prediction: model outputs by name.
        graph: the part of the batch that is on this device.
        devices: that share the batch.

    Returns:
        For each step that there was room for ``moved`` and ``running``, how many structures it
        changed and how many it or a later one did, and ``change``, the largest residual in e among
        these; ``final``, the largest residual of all structures at their end.
    """
    if "scf_history" not in prediction:
        return {}
    history, real = jnp.asarray(prediction["scf_history"]), jnp.asarray(graph.graph_mask)[:, None]
    # The history of a structure that has ended repeats its last residual.
    same = (history[:, 1:] == history[:, :-1]) | ~jnp.isfinite(history[:, 1:])
    moved = real & jnp.concatenate([jnp.ones_like(real), ~same], axis=1)
    running = jax.lax.cummax(moved.astype(jnp.int32), axis=1, reverse=True)
    zero = jnp.zeros_like(history)
    return {
        "moved": devices.sum(jnp.sum(moved.astype(jnp.int32), axis=0)),
        "running": devices.sum(jnp.sum(running, axis=0)),
        "change": devices.max(jnp.max(jnp.where(running > 0, history, zero), axis=0)),
        "final": devices.max(jnp.max(jnp.where(real, history, zero)[:, -1])),
    }


def log_steps(steps: Mapping[str, Any], counts: SCFCounts) -> None:
    """Write the lines of one batch.

    Args:
        steps: what `scf_steps` gave, on the host.
        counts: how the solutions of the batch ended.
    """
    if steps and logger.isEnabledFor(logging.DEBUG):
        for line in _lines(steps, counts):
            logger.debug("%s", line)


def _lines(steps: Mapping[str, Any], counts: SCFCounts) -> Iterator[str]:
    taken = np.flatnonzero(steps["moved"])
    for number, step in enumerate(taken):
        running, change = steps["running"][step], steps["change"][step]
        yield f"step {number}, {running} of {counts.structures} structures, {_change(change)}"
    last = f"at step {len(taken) - 1}, {_change(steps['final'])}"
    if not (counts.unsolved or counts.fallback):
        yield f"SCF converged {last}"
    else:
        yield f"SCF {'diverged' if counts.diverged else 'ended'} {last}: {counts.sentence()}"


def _change(value: Any) -> str:
    return f"abs_change(s)={float(value):.3e}"
