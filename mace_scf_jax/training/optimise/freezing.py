"""Parameters that stay as they are, bit for bit, in a stage."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mace_scf_jax.training.optimise.parameter_groups import Parameters, in_groups

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Parameter groups that stay as they are.

    Args:
        groups: their names; none for nothing.
    """

    groups: tuple[str, ...] = ()

    def without(self, gradient: Parameters) -> Parameters:
        """Return a gradient that is zero where nothing is to change."""
        if not self.groups:
            return gradient
        return jax.tree.map(
            lambda keep, leaf: jnp.zeros_like(leaf) if keep else leaf,
            in_groups(self.groups, gradient),
            gradient,
        )

    def kept(self, before: Tree, after: Tree, parameters: Parameters) -> Tree:
        """Return what is after a step, but what was before it where nothing is to change.

        Args:
            before: parameters, or any tree that holds trees like them, such as the moments of an
                optimiser.
            after: the same after the step.
            parameters: the parameters.
        """
        if not self.groups:
            return after
        is_frozen = in_groups(self.groups, parameters)
        structure = jax.tree.structure(parameters)

        def is_like_parameters(node: Any) -> bool:
            return isinstance(node, dict) and jax.tree.structure(node) == structure

        def choose(old: Any, new: Any) -> Any:
            if not is_like_parameters(old):
                return new
            return jax.tree.map(lambda keep, a, b: a if keep else b, is_frozen, old, new)

        return jax.tree.map(choose, before, after, is_leaf=is_like_parameters)
