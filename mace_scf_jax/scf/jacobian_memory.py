"""What a search has learned of the Jacobian of its residual, for the next search nearby.

Every step Δz of an iteration and the change ΔR that it caused tell a little about the Jacobian.
From one problem to the next, such as from step to step of a trajectory, the solution moves a lot
more than the Jacobian does: pairs (Δz, ΔR) of the searches before make the first step of the next
almost a Newton step.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.krylov import Vectors

Pairs = TypeVar("Pairs", "JacobianMemory", "OrthonormalPairs")
NUM_PAIRS = 20
"""Pairs that are remembered; more are no better, because old ones are less true."""
INDEPENDENT_OF_NEWER = 1e-2
"""Part of a remembered change of the residual that has to be new against later ones. A smaller
part would be amplified, with all that the Jacobian has changed since."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JacobianMemory:
    """Steps of earlier searches, and what they did to the residual."""

    steps: Float[Array, "systems pairs unknowns"]
    """Δz, the latest last; zero where there is none."""
    changes: Float[Array, "systems pairs unknowns"]
    """ΔR."""

    @classmethod
    def empty(cls, num_systems: int, num_unknowns: int, dtype: jnp.dtype) -> JacobianMemory:
        """The memory before any search.

        Args:
            num_systems: number of systems.
            num_unknowns: entries of a vector z.
            dtype: of the vectors.
        """
        pairs = jnp.zeros((num_systems, NUM_PAIRS, num_unknowns), dtype)
        return cls(steps=pairs, changes=pairs)

    def with_pair(
        self, step: Vectors, change: Vectors, keep: Bool[Array, "systems"]
    ) -> JacobianMemory:
        """The memory with one more pair instead of the oldest one, in some systems."""
        at = keep[:, None, None]

        def with_latest(pairs: Array, latest: Array) -> Array:
            return jnp.where(at, jnp.concatenate([pairs[:, 1:], latest[:, None]], axis=1), pairs)

        return JacobianMemory(
            steps=with_latest(self.steps, step), changes=with_latest(self.changes, change)
        )

    def orthonormal(self, size: int) -> OrthonormalPairs:
        """Pairs that say the same, the later ones the more faithfully.

        Args:
            size: number of pairs to give, the latest; zeros come first where there are fewer.
        """
        missing = max(0, size - self.steps.shape[1])
        steps, changes = (
            jnp.pad(pairs[:, -size:], ((0, 0), (missing, 0), (0, 0)))
            for pairs in (self.steps, self.changes)
        )

        def add(step_number: Array, done: OrthonormalPairs) -> OrthonormalPairs:
            slot = size - 1 - step_number
            step, change, _ = done.orthonormalise(
                steps[:, slot], changes[:, slot], INDEPENDENT_OF_NEWER
            )
            return dataclasses.replace(
                done,
                steps=done.steps.at[:, slot].set(step),
                changes=done.changes.at[:, slot].set(change),
            )

        return jax.lax.fori_loop(0, size, add, OrthonormalPairs.none(size, steps[:, 0]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OrthonormalPairs:
    """Pairs (Δz, ΔR), combined such that the ΔR are orthonormal; zero where there is none."""

    steps: Float[Array, "systems pairs unknowns"]
    """Δz."""
    changes: Float[Array, "systems pairs unknowns"]
    """ΔR."""
    next_slot: Int[Array, "systems"]
    """Which pair the next one replaces."""

    @classmethod
    def none(cls, size: int, example: Vectors) -> OrthonormalPairs:
        """No pairs, with room for some.

        Args:
            size: largest number of pairs.
            example: vectors of the shape and type of a step.
        """
        count, unknowns = example.shape
        pairs = jnp.zeros((count, size, unknowns), example.dtype)
        return cls(pairs, pairs, jnp.zeros(count, jnp.int32))

    def project(self, residual: Vectors) -> tuple[Array, Array]:
        """The combination of steps that removes most of a residual, and what it leaves of it."""
        overlap = jnp.einsum("smu,su->sm", self.changes, residual)
        rest = residual - jnp.einsum("sm,smu->su", overlap, self.changes)
        return -jnp.einsum("sm,smu->su", overlap, self.steps), rest

    def orthonormalise(
        self, step: Vectors, change: Vectors, independent: float
    ) -> tuple[Array, Array, Bool[Array, "systems"]]:
        """A pair combined with these, to a change of length one orthogonal to theirs.

        Args:
            step: Δz.
            change: ΔR.
            independent: part of the change that has to be new.

        Returns:
            The pair, zero where too little is new; and where enough is.
        """
        size = jnp.linalg.norm(change, axis=-1)
        for _ in range(2):  # twice is enough to be orthogonal to round-off
            combination, change = self.project(change)
            step = step + combination
        norm = jnp.linalg.norm(change, axis=-1)
        is_new = norm > independent * size
        inverse = jnp.where(is_new, 1.0 / jnp.where(is_new, norm, 1.0), 0.0)[:, None]
        return inverse * step, inverse * change, is_new

    def with_pair(
        self, step: Vectors, change: Vectors, keep: Bool[Array, "systems"], independent: float
    ) -> OrthonormalPairs:
        """The pairs with one more in some systems, where enough of it is new."""
        systems, slot = jnp.arange(len(step), dtype=jnp.int32), self.next_slot
        at = keep[:, None]

        def without_next(pairs: Array) -> Array:
            return pairs.at[systems, slot].set(jnp.where(at, 0.0, pairs[systems, slot]))

        # the new pair replaces the one in its slot, which therefore is not projected out
        others = dataclasses.replace(
            self, steps=without_next(self.steps), changes=without_next(self.changes)
        )
        step, change, is_new = others.orthonormalise(
            jnp.where(at, step, 0.0), jnp.where(at, change, 0.0), independent
        )
        return OrthonormalPairs(
            steps=others.steps.at[systems, slot].add(step),
            changes=others.changes.at[systems, slot].add(change),
            next_slot=jnp.where(is_new, (slot + 1) % self.steps.shape[1], slot),
        )


def forget(pairs: Pairs, of: Bool[Array, "systems"]) -> Pairs:
    """The same pairs, or a memory of them, without those of some systems."""
    return jax.tree.map(
        lambda leaf: jnp.where(of.reshape((-1,) + (1,) * (leaf.ndim - 1)), 0, leaf), pairs
    )
