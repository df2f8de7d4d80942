"""Parameters that stay as they are, bit for bit, in a stage or throughout."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mace_scf_jax.training.optimise.low_rank import are_trained
from mace_scf_jax.training.optimise.parameter_groups import Parameters, in_groups

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Parameter groups that stay as they are, as weights below low-rank updates do in any case.

    Args:
        groups: their names; none for nothing.
    """

    groups: tuple[str, ...] = ()

    def without(self, gradient: Parameters) -> Parameters:
        """Return a gradient that is zero where nothing is to change."""
        stays = self._stays(gradient)
        if not any(jax.tree.leaves(stays)):
            return gradient
        return jax.tree.map(
            lambda keep, leaf: jnp.zeros_like(leaf) if keep else leaf, stays, gradient
        )

    def kept(self, before: Tree, after: Tree, parameters: Parameters) -> Tree:
        """Return what is after a step, but what was before it where nothing is to change.

        Args:
            before: parameters, or any tree that holds trees like them, such as the moments of an
                optimiser.
            after: the same after the step.
            parameters: the parameters.
        """
        stays = self._stays(parameters)
        if not any(jax.tree.leaves(stays)):
            return after
        structure = jax.tree.structure(parameters)

        def is_like_parameters(node: Any) -> bool:
            return isinstance(node, dict) and jax.tree.structure(node) == structure

        def choose(old: Any, new: Any) -> Any:
            if not is_like_parameters(old):
                return new
            return jax.tree.map(lambda keep, a, b: a if keep else b, stays, old, new)

        return jax.tree.map(choose, before, after, is_leaf=is_like_parameters)

    def _stays(self, parameters: Parameters) -> Any:
        """The tree of parameters with each array replaced by whether it stays as it is."""
        return jax.tree.map(
            lambda frozen, trained: frozen or not trained,
            in_groups(self.groups, parameters),
            are_trained(parameters),
        )
