"""Which outputs of a structure mean something, given the directions in which it is periodic.

A stress needs a period and a volume to divide by. A sum Σ Q r changes with the
periodic image that is given of an atom whose charge changes, so along periodic directions only the
dipole of families with a polarization means something. What means nothing is not a number where
arrays have a fixed shape, and left out of predictions, files and results of calculators.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.settings import ModelSettings

_ALONG = 1e-6
"""Å of a Cartesian component above which a lattice vector has one."""


def undefined(
    settings: ModelSettings, pbc: Bool[Array | np.ndarray, "3"], cell: Float[Any, "3 3"]
) -> dict[str, Bool[Array | np.ndarray, "..."]]:
    """Tell which entries of the outputs of one structure mean nothing, by name of the output.

    Args:
        pbc: periodic directions.
        cell: lattice vectors in Å (rows); those of open directions do not matter.
    """
    has_no_volume = (cell == 0.0).all(1).any()  # a slab without a vector along its open direction
    masks = {"stress": (~pbc.any() | has_no_volume).reshape(1, 1)}
    if settings.electrostatics is not None and not settings.own.has_polarization:
        along = (pbc[:, None] & (abs(cell) > _ALONG)).any(0)
        masks["dipole"] = along
        if settings.of_family.responds_to_field:
            masks["polarizability"] = along[:, None] | along
    return masks


def as_nan(settings: ModelSettings, outputs: dict[str, Array], graph: Graph) -> dict[str, Array]:
    """Replace what means nothing by NaN, in outputs of a batch.

    Args:
        outputs: by name.
    """
    masks = jax.vmap(functools.partial(undefined, settings))(
        jnp.asarray(graph.pbc), jnp.asarray(graph.cell)
    )
    blank = {
        name: jnp.where(mask, jnp.asarray(jnp.nan, outputs[name].dtype), outputs[name])
        for name, mask in masks.items()
        if name in outputs
    }
    return outputs | blank


def meaningful(
    settings: ModelSettings, outputs: Mapping[str, Any], pbc: Bool[np.ndarray, "3"], cell: Any
) -> dict[str, Any]:
    """Leave out outputs of one structure that mean nothing; single entries of others become NaN.

    Args:
        outputs: by name, on the host.
        pbc: periodic directions.
        cell: lattice vectors in Å (rows).
    """
    kept = dict(outputs)
    for name, mask in undefined(settings, np.asarray(pbc), np.asarray(cell)).items():
        if name in kept and mask.any():
            if mask.all():
                del kept[name]
            else:
                kept[name] = np.where(mask, np.nan, kept[name])
    return kept
