"""Which optimiser group each parameter belongs to.

Groups carry the weight decay, and any stage may give a group its own learning rate
(``<group>_lr``). A parameter in no group would silently never be decayed or trained at the rate
that the user meant, so it is an error.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from mace_scf_jax.backbones.backbone import BACKBONES
from mace_scf_jax.models.family import FAMILIES
from mace_scf_jax.parameter_group import WEIGHT_DECAY, ParameterGroup

Parameters = Any
"""A nested dictionary of arrays."""


class ParameterGroupError(ValueError):
    """A parameter belongs to no optimiser group."""


def _groups() -> dict[str, ParameterGroup]:
    """Groups of all backbones and families by the pattern of their parameters' paths."""
    of_backbones = {
        f"backbone/{pattern}": group
        for backbone in BACKBONES.values()
        for pattern, group in backbone.groups.items()
    }
    of_families = [family.groups for family in FAMILIES.values()]
    return functools.reduce(operator.or_, of_families, of_backbones)


def parameter_groups() -> tuple[str, ...]:
    """Return the names of the optimiser groups."""
    return tuple(dict.fromkeys(group.name for group in _groups().values()))


def decayed_groups() -> tuple[str, ...]:
    """Return the groups that ``weight_decay`` applies to; others have none, or one of their own."""
    decayed = (group for group in _groups().values() if group.decay == WEIGHT_DECAY)
    return tuple(dict.fromkeys(group.name for group in decayed))


def parameter_name(path: tuple[Any, ...]) -> str:
    """Name of a leaf of a pytree, its keys joined by ``/``."""
    import jax  # of those who have parameters

    return jax.tree_util.keystr(path, simple=True, separator="/")


def group_of(name: str) -> str:
    """Optimiser group of one parameter.

    Args:
        name: keys of the parameter in the tree, joined by ``/``.

    Raises:
        ParameterGroupError: no group holds the parameter.
    """
    for pattern, group in _groups().items():
        if re.match(pattern, name):
            return group.name
    raise ParameterGroupError(
        f"parameter '{name}' belongs to no optimiser group ({', '.join(parameter_groups())}); "
        "every trainable parameter needs one"
    )


def group_labels(params: Parameters) -> Any:
    """The tree of parameters with each array replaced by the name of its group.

    Raises:
        ParameterGroupError: names the first parameter without a group.
    """
    import jax

    return jax.tree_util.tree_map_with_path(lambda path, _: group_of(parameter_name(path)), params)


def in_groups(groups: Collection[str], params: Parameters) -> Any:
    """The tree of parameters with each array replaced by whether it is in one of the groups."""
    import jax

    if not groups:
        return jax.tree.map(lambda leaf: False, params)
    return jax.tree.map(lambda group: group in groups, group_labels(params))


def group_sizes(params: Parameters) -> dict[str, int]:
    """Number of trainable numbers in each group that has any, in the order of the groups.

    Raises:
        ParameterGroupError: names the first parameter without a group.
    """
    import jax

    sizes = dict.fromkeys(parameter_groups(), 0)
    labels = jax.tree.leaves(group_labels(params))
    for group, values in zip(labels, jax.tree.leaves(params), strict=True):
        sizes[group] += int(np.prod(values.shape))
    return {group: size for group, size in sizes.items() if size}
