"""Low-rank updates (LoRA): weights of a start model that stay, and small changes of its matrices.

A matrix W of the start model becomes

    W + (α / r) A B,      A: [inputs, r],   B: [r, outputs],

of which A and B alone are trained. It is a parametrisation of the tree of parameters, outside of
all modules: `merged` makes the weights that a model takes, in every step and for its file.

B begins at zero, so that the first weights are those of the start model. A is drawn from N(0, s²),
s being the root mean square of W. The steps of adaptive optimisers are of the length of the
learning rate, so a step of B changes every matrix by about lr · α / √r of its own size, whether the
weights of its kind are of the order 1 (equivariant maps) or smaller (dense layers).

Source:
    Hu et al., LoRA: Low-rank adaptation of large language models, arXiv:2106.09685.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.optimise.parameter_groups import (
    Parameters,
    group_of,
    group_sizes,
    parameter_name,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted:
    """An array of the start model, in the place of a trained one; a node of the tree."""

    start: Any
    """The array, which stays as it is."""
    down: Any = None
    """A, which is trained; None for arrays without update."""
    up: Any = None
    """B."""
    scale: float = dataclasses.field(default=0.0, metadata={"static": True})
    """α / r."""

    @property
    def value(self) -> Array | np.ndarray:
        """The array that the model takes."""
        if self.down is None:
            return self.start
        return self.start + self.scale * jnp.matmul(self.down, self.up, precision="highest")


def merged(parameters: Parameters) -> Parameters:
    """Return the parameters that a model takes; others than adapted ones are returned as they are.

    Args:
        parameters: as they are trained.
    """
    return jax.tree.map(
        lambda node: node.value if _is_adapted(node) else node, parameters, is_leaf=_is_adapted
    )


def are_trained(parameters: Parameters) -> Any:
    """The tree of parameters with each array replaced by whether it is trained."""

    def whether(node: Any) -> Any:
        if not _is_adapted(node):
            return True
        trained = jax.tree.map(lambda leaf: True, node)
        return dataclasses.replace(trained, start=False)

    return jax.tree.map(whether, parameters, is_leaf=_is_adapted)


def with_low_rank_updates(
    parameters: Parameters,
    taken_over: Collection[str],
    *,
    rank: int,
    alpha: float,
    groups: Collection[str] | None,
    seed: int,
) -> Parameters:
    """Keep what was taken over from a start model, but for updates of its matrices.

    Matrices are the arrays of two axes: equivariant maps of each degree, embeddings of elements,
    layers of radial and other networks. The rank of a smaller matrix is that of the matrix.

    Args:
        parameters: of the new model before the first step.
        taken_over: names of those that are of the start model; others are trained as they are.
        rank: r, number of columns of A.
        alpha: α.
        groups: optimiser groups whose matrices are updated; None for all.
        seed: of the numbers in A.

    Raises:
        ConfigurationError: a group has no matrix of the start model.
    """
    generator, found = np.random.default_rng(seed), set()

    def adapted(path: tuple[Any, ...], leaf: Array | np.ndarray) -> Any:
        name = parameter_name(path)
        if name not in taken_over:
            return leaf
        if leaf.ndim != 2:
            return Adapted(jnp.asarray(leaf))
        found.add(group_of(name))
        if groups is not None and group_of(name) not in groups:
            return Adapted(jnp.asarray(leaf))
        inputs, outputs = leaf.shape
        columns = min(rank, inputs, outputs)
        size = float(np.sqrt(np.mean(np.square(leaf, dtype=np.float64)))) or 1.0
        return Adapted(
            jnp.asarray(leaf),
            jnp.asarray(size * generator.standard_normal((inputs, columns)), leaf.dtype),
            jnp.zeros((columns, outputs), leaf.dtype),
            alpha / rank,
        )

    tree = jax.tree_util.tree_map_with_path(adapted, parameters)
    without = [group for group in groups or () if group not in found]
    if without:
        raise ConfigurationError(
            f"lora: groups: found {', '.join(without)}, which have no matrices of the "
            f"start model; {', '.join(sorted(found))} have"
        )
    return tree


def trained_sizes(parameters: Parameters) -> dict[str, int]:
    """Number of numbers that are trained in each group that has any, in the order of the groups."""
    return group_sizes(_trained(parameters))


def describe(parameters: Parameters) -> str:
    """Tell how many numbers are trained, and of what."""
    nodes = jax.tree.leaves(parameters, is_leaf=_is_adapted)
    updates = sum(_is_adapted(node) and node.down is not None for node in nodes)
    new = sum(not _is_adapted(node) for node in nodes)
    trained, all_numbers = (
        sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
        for tree in (_trained(parameters), merged(parameters))
    )
    return (
        f"{trained} numbers are trained in a model of {all_numbers}: updates of {updates} matrices "
        f"and {new} new arrays"
    )


def _trained(parameters: Parameters) -> Parameters:
    """The parameters without what stays as it is."""
    return jax.tree.map(
        lambda trained, leaf: leaf if trained else None, are_trained(parameters), parameters
    )


def _is_adapted(node: Any) -> bool:
    return isinstance(node, Adapted)
