"""What a search has learned of the Jacobian of its residual, for the next search nearby.

Every step Δz of an iteration and the change ΔR that it caused tell a little about the Jacobian.
From one problem to the next, such as from step to step of a trajectory, the solution moves a lot
more than the Jacobian does: pairs (Δz, ΔR) of the searches before make the first step of the next
almost a Newton step.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
            num_unknowns: entries of the vectors of `Unknowns`.
            dtype: of the vectors.
        """
        pairs = jnp.zeros((num_systems, NUM_PAIRS, num_unknowns), dtype)
        return cls(steps=pairs, changes=pairs)

    def with_pair(
        self,
        step: Float[Array, "systems unknowns"],
        change: Float[Array, "systems unknowns"],
        keep: Bool[Array, "systems"],
    ) -> JacobianMemory:
        """The memory with one more pair instead of the oldest one, in some systems."""
        at = keep[:, None, None]

        def with_latest(pairs: Array, latest: Array) -> Array:
            return jnp.where(at, jnp.concatenate([pairs[:, 1:], latest[:, None]], axis=1), pairs)

        return dataclasses.replace(
            self,
            steps=with_latest(self.steps, step),
            changes=with_latest(self.changes, change),
        )

    def forgotten(self, of: Bool[Array, "systems"]) -> JacobianMemory:
        """The memory without the pairs of some systems."""
        at = of[:, None, None]
        return dataclasses.replace(
            self,
            steps=jnp.where(at, 0.0, self.steps),
            changes=jnp.where(at, 0.0, self.changes),
        )

    def orthonormal(self, size: int) -> tuple[Array, Array]:
        """Steps and orthonormal changes that say the same, the later ones the more faithfully.

        Args:
            size: number of pairs to give, the latest; zeros come first where there are fewer.

        Returns:
            Steps and changes [systems, size, unknowns].
        """
        systems, count, unknowns = self.steps.shape
        blank = jnp.zeros((systems, max(0, size - count), unknowns), self.steps.dtype)
        steps = jnp.concatenate([blank, self.steps[:, max(0, count - size) :]], axis=1)
        changes = jnp.concatenate([blank, self.changes[:, max(0, count - size) :]], axis=1)

        def add(step_number: Array, done: tuple[Array, Array]) -> tuple[Array, Array]:
            slot = size - 1 - step_number
            pair = orthonormalised(*done, steps[:, slot], changes[:, slot], INDEPENDENT_OF_NEWER)
            return done[0].at[:, slot].set(pair[0]), done[1].at[:, slot].set(pair[1])

        nothing = (jnp.zeros_like(steps), jnp.zeros_like(changes))
        return jax.lax.fori_loop(0, size, add, nothing)


def orthonormalised(
    steps: Float[Array, "systems pairs unknowns"],
    changes: Float[Array, "systems pairs unknowns"],
    step: Float[Array, "systems unknowns"],
    change: Float[Array, "systems unknowns"],
    independent: float,
) -> tuple[Array, Array, Array]:
    """A pair (Δz, ΔR) combined with others, to a change of length one orthogonal to theirs.

    Args:
        steps: of the others.
        changes: of the others, orthonormal or zero.
        step: Δz.
        change: ΔR.
        independent: part of the change that has to be new.

    Returns:
        The pair, zero where too little is new; and where enough is.
    """
    size = jnp.linalg.norm(change, axis=-1)
    for _ in range(2):  # twice is enough to be orthogonal to round-off
        overlap = jnp.einsum("smu,su->sm", changes, change)
        change = change - jnp.einsum("sm,smu->su", overlap, changes)
        step = step - jnp.einsum("sm,smu->su", overlap, steps)
    norm = jnp.linalg.norm(change, axis=-1)
    is_new = norm > independent * size
    inverse = jnp.where(is_new, 1.0 / jnp.where(is_new, norm, 1.0), 0.0)[:, None]
    return inverse * step, inverse * change, is_new
