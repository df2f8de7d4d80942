"""How self-consistent solutions ended, counted over batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.graph import Graph
from mace_scf_jax.scf import SolverStatus

SCF_INPUTS = frozenset({"scf_status", "scf_fallback", "scf_evaluations", "scf_history"})
"""Model outputs that tell what became of the self-consistency."""


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
    """Evaluations of a self-consistent step, over all structures."""

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> SCFCounts:
        """Counts from the result of `scf_counts` on the host."""
        return cls(**{name: int(value) for name, value in counts.items()})

    def __add__(self, other: SCFCounts) -> SCFCounts:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return SCFCounts(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def unsolved(self) -> int:
        """Structures whose solution did not converge."""
        return self.max_steps + self.diverged + self.singular

    def sentence(self) -> str:
        """What went wrong, or how much work it took."""
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
    """The counts of one batch by name; empty where nothing was solved for.

    Args:
        prediction: model outputs by name.
        graph: the batch.
    """
    if "scf_status" not in prediction:
        return {}
    status, real = jnp.asarray(prediction["scf_status"]), jnp.asarray(graph.graph_mask)

    def count(mask: Array) -> Array:
        return jnp.sum((real & mask).astype(jnp.int32))

    return {
        "structures": count(jnp.ones_like(real)),
        "max_steps": count(status == SolverStatus.MAX_STEPS),
        "diverged": count(status == SolverStatus.DIVERGED),
        "singular": count(status == SolverStatus.SINGULAR),
        "fallback": count(jnp.asarray(prediction["scf_fallback"])),
        "evaluations": jnp.sum(jnp.where(real, prediction["scf_evaluations"], 0)),
    }
