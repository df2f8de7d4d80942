"""What a model makes of the surroundings of every atom: the features of its layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ase
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import to_e3nn
from mace_scf_jax.models import ModelSettings, build
from mace_scf_jax.models.backbone_output import backbone_output
from mace_scf_jax.predict.model import Model

DESCRIPTORS = "descriptors"
"""Name of the output of backbones with descriptors."""


def layer_features(
    model: Model, atoms: ase.Atoms, *, invariants_only: bool = True, num_layers: int = -1
) -> Float[np.ndarray, "atoms features"]:
    """Learned features of every atom of a structure; of a descriptor potential its descriptors.

    Args:
        model: of any family.
        atoms: the structure.
        invariants_only: leave out features that rotate with the structure.
        num_layers: layers whose features are taken, from the first on; -1 for all.

    Returns:
        Those of one layer after the other, as in MACE: the invariants, then, if asked for, the
        components x, y, z of every channel of degree 1, and so on. Descriptors are raw, in the
        order of `Descriptor.feature_names`, and have one layer.

    Raises:
        DataError: the structure cannot be used.
        BoundaryError: its periodicity does not fit the model's electrostatics.
        ValueError: there are not as many layers.
    """
    layers = model.settings.backbone.num_interactions
    if num_layers != -1 and not 1 <= num_layers <= layers:
        raise ValueError(f"num_layers: expected -1 or 1 to {layers}, found {num_layers}")
    structure = model.prepare_atoms([atoms])
    ((_, graph),) = model.batches(structure, batch_size=1)
    compute = _compiled(model.settings, invariants_only)
    rows = graph.slots[0][graph.slot_mask[0]]
    features = compute(model.parameters, model.inputs_of(graph))[: num_layers % (layers + 1)]
    return np.concatenate([np.asarray(values)[rows] for values in features], axis=-1)


@functools.lru_cache(maxsize=16)
def _compiled(settings: ModelSettings, invariants_only: bool) -> Callable[..., list[Array]]:
    """The compiled function of all models with the same settings, whatever their parameters."""
    module = build(settings)

    @jax.jit
    def features_of(parameters: dict[str, Any], graph: Graph) -> list[Array]:
        if DESCRIPTORS in settings.backbone.on_request:
            return [settings.backbone.describe(graph)[DESCRIPTORS]]
        if invariants_only:
            layers = backbone_output(module, parameters, graph).layers
            return [features[0][:, 0] for features in layers]
        return features_of_mace(module, parameters, graph)

    return features_of


def features_of_mace(module: nn.Module, params: dict[str, Any], graph: Graph) -> list[Array]:
    """Return the features of every layer, [atoms, features], in the layout of MACE.

    Its harmonics have their polar axis along y, ours along z: they are ours of turned structures.

    Args:
        module: of a model.
        params: of the model.
    """
    turned = graph.replace(
        positions=jnp.roll(jnp.asarray(graph.positions), 1, axis=-1),
        cell=jnp.roll(jnp.asarray(graph.cell), 1, axis=-1),
    )
    return [to_e3nn(features) for features in backbone_output(module, params, turned).layers]
