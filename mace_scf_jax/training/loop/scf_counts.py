"""How self-consistent solutions ended, counted over batches, and their steps for the debug log.

For every batch the debug log has one line per step, ``step 3, 2 of 10 structures,
abs_change(s)=1.2e-04``: how many structures are still on their way, and the largest change among
them; then one line on the end, ``SCF converged at step 3, abs_change(s)=8.1e-07``. These are the
lines of the PyTorch reference, whose structures all end together.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.outputs import OUTPUTS, Output, ends_of_searches
from mace_scf_jax.scf import SolverStatus
from mace_scf_jax.training.loop.devices import Devices

logger = logging.getLogger(__name__)

_OF_FIXED_POINTS = frozenset({"scf_fallback", "scf_evaluations", "scf_history"})


def scf_inputs() -> frozenset[str]:
    """Names of the outputs of models that tell what became of their searches for multipoles."""
    ends = ends_of_searches(OUTPUTS)
    return _OF_FIXED_POINTS.union(*((end.name, end.search.steps) for end in ends))


@dataclasses.dataclass(frozen=True)
class SCFCounts:
    """Numbers of structures by how their solution ended."""

    structures: int = 0
    """All that were solved for; 0 for models and modes without self-consistency."""
    max_steps: int = 0
    diverged: int = 0
    singular: int = 0
    fallback: int = 0
    """Those that fell back to unrolled mixing; they are counted by how that ended, too."""
    evaluations: int = 0
    """Evaluations of a self-consistent step, or steps of a minimisation, over all structures."""

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> SCFCounts:
        """Read the result of `scf_counts` on the host."""
        return cls(**{name: int(value) for name, value in counts.items()})

    def __add__(self, other: SCFCounts) -> SCFCounts:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return SCFCounts(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def unsolved(self) -> int:
        """Structures whose solution did not converge."""
        return self.max_steps + self.diverged + self.singular

    def sentence(self) -> str:
        """Tell what went wrong, or how much work it took."""
        if not (self.unsolved or self.fallback):
            mean = self.evaluations / max(self.structures, 1)
            return f"all {self.structures} structures self-consistent, {mean:.1f} evaluations each"
        names = ("max_steps", "diverged", "singular")
        ends = ", ".join(f"{getattr(self, name)} {name}" for name in names if getattr(self, name))
        text = f"{self.unsolved} of {self.structures} structures not self-consistent"
        text += f" ({ends})" if ends else ""
        return text + (f", {self.fallback} fell back to unroll_scf" if self.fallback else "")


NO_COUNTS = SCFCounts()


def scf_counts(prediction: Mapping[str, Array], graph: Graph) -> dict[str, Array]:
    """Count how the structures of one batch ended; empty where nothing was searched for."""
    real = jnp.asarray(graph.graph_mask)

    def count(per_structure: Any) -> Array:
        return jnp.sum(jnp.where(real, jnp.asarray(per_structure).astype(jnp.int32), 0))

    def of_search(end: Output) -> dict[str, Array]:
        status = jnp.asarray(prediction[end.name])
        steps = prediction.get(end.search.steps, 0)
        return {
            "structures": count(1),
            "max_steps": count(status == SolverStatus.MAX_STEPS),
            "diverged": count(status == SolverStatus.DIVERGED),
            "singular": count(status == SolverStatus.SINGULAR),
            "fallback": count(prediction.get("scf_fallback", 0)),
            "evaluations": count(prediction.get("scf_evaluations", steps)),
        }

    counts = [of_search(end) for end in ends_of_searches(prediction)]
    return jax.tree.map(lambda *each: sum(each), *counts) if counts else {}


def scf_steps(prediction: Mapping[str, Array], graph: Graph, devices: Devices) -> dict[str, Array]:
    """Tell what the steps of a batch were like; empty where nothing was solved for.

    Args:
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
