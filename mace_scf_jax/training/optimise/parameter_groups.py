"""Which optimiser group each parameter belongs to.

Groups carry the weight decay, and any stage may give a group its own learning rate
(``<group>_lr``). A parameter in no group would silently never be decayed or trained at the rate
that the user meant, so it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Parameters = Any
"""A nested dictionary of arrays."""

DECAYED_INTERACTION_LAYER = "linear"
"""The layer of an interaction block that weight decay applies to, the map of the messages."""


class ParameterGroupError(ValueError):
    """A parameter belongs to no optimiser group."""


def _interaction_group(layers: tuple[str, ...]) -> str:
    decayed = DECAYED_INTERACTION_LAYER in layers
    return "interactions_decay" if decayed else "interactions_no_decay"


_RULES: tuple[tuple[str, Callable[[tuple[str, ...]], str]], ...] = (
    (r"backbone/embedding/", lambda layers: "embedding"),
    (r"backbone/interaction_\d+/", _interaction_group),
    (r"backbone/product_\d+/", lambda layers: "products"),
    (r"backbone/readout_\d+/", lambda layers: "readouts"),
    (
        r"(multipole_readout|bond_transfer|oxidation_state_gate)_\d+/",
        lambda layers: "lr_source_maps",
    ),
    (r"polarizability_readout_\d+/", lambda layers: "polarizability_readouts"),
    (r"oxidation_state_mixer/", lambda layers: "oxidation_state_mixer"),
    (r"electronegativity_readout_\d+/", lambda layers: "enegs_readouts"),
    (r"hardness_readout_\d+/", lambda layers: "hardness_readouts"),
    (r"functional/", lambda layers: "functional_readouts"),
    (r"density_update/", lambda layers: "field_dependent_charges_map"),
    (r"field_readout/", lambda layers: "local_electron_energy"),
    (r"feature_mixer_\d+/", lambda layers: "layer_feature_mixer"),
)

PARAMETER_GROUPS = (
    "embedding",
    "interactions_decay",
    "interactions_no_decay",
    "products",
    "readouts",
    "lr_source_maps",
    "polarizability_readouts",
    "oxidation_state_mixer",
    "enegs_readouts",
    "hardness_readouts",
    "functional_readouts",
    "field_dependent_charges_map",
    "local_electron_energy",
    "layer_feature_mixer",
)
"""Names of the optimiser groups."""

WEIGHT_DECAY_GROUPS = (
    "interactions_decay",
    "products",
    "enegs_readouts",
    "hardness_readouts",
    "local_electron_energy",
    "layer_feature_mixer",
)
"""Groups that the option ``weight_decay`` applies to; others have none, or one of their own."""


def parameter_name(path: tuple[Any, ...]) -> str:
    """Name of a leaf of a pytree, its keys joined by ``/``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def group_of(name: str) -> str:
    """Optimiser group of one parameter.

    Args:
        name: keys of the parameter in the tree, joined by ``/``.

    Raises:
        ParameterGroupError: no group holds the parameter.
    """
    for pattern, choose in _RULES:
        if re.match(pattern, name):
            return choose(tuple(name.split("/")))
    raise ParameterGroupError(
        f"parameter '{name}' belongs to no optimiser group ({', '.join(PARAMETER_GROUPS)}); "
        "every trainable parameter needs one"
    )


def group_labels(params: Parameters) -> Any:
    """The tree of parameters with each array replaced by the name of its group.

    Raises:
        ParameterGroupError: names the first parameter without a group.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: group_of(parameter_name(path)), params)


def group_sizes(params: Parameters) -> dict[str, int]:
    """Number of trainable numbers in each group that has any, in the order of the groups.

    Raises:
        ParameterGroupError: names the first parameter without a group.
    """
    sizes = dict.fromkeys(PARAMETER_GROUPS, 0)
    labels = jax.tree.leaves(group_labels(params))
    for group, values in zip(labels, jax.tree.leaves(params), strict=True):
        sizes[group] += int(np.prod(values.shape))
    return {group: size for group, size in sizes.items() if size}
