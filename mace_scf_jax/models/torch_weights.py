"""Weights of the PyTorch packages MACE and MACE_SCF, by their state-dict names.

e3nn stores the weights of a layer as one flat vector, block after block; here every block becomes
a matrix of our parameter tree. Normalisations agree, so numbers are copied as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ase
import jax
import numpy as np

from mace_scf_jax.backbone.features import Multiplicities, parse_multiplicities
from mace_scf_jax.backbone.interaction import INTERACTIONS
from mace_scf_jax.backbone.messages import message_paths
from mace_scf_jax.backbone.readout import GatedNonlinearity
from mace_scf_jax.backbone.settings import BackboneSettings
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.models.registry import build
from mace_scf_jax.models.settings import ModelSettings

StateDict = Mapping[str, np.ndarray]
Parameters = dict[str, Any]

_EMBEDDING = "node_embedding.linear"


class WeightImportError(ValueError):
    """A PyTorch state dict does not hold the weights of the model it is said to be."""


def _take(state: StateDict, name: str) -> np.ndarray:
    if name not in state:
        raise WeightImportError(f"state dict has no {name!r}")
    return np.asarray(state[name], dtype=np.float64)


def _split(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]], name: str) -> Parameters:
    """Cut a flat weight vector into named blocks."""
    sizes = {key: int(np.prod(shape)) for key, shape in shapes.items()}
    if flat.size != sum(sizes.values()):
        raise WeightImportError(
            f"{name}: expected {sum(sizes.values())} weights ({dict(shapes)}), found {flat.size}"
        )
    blocks, start = {}, 0
    for key, shape in shapes.items():
        blocks[key] = flat[start : start + sizes[key]].reshape(shape)
        start += sizes[key]
    return blocks


def linear(
    state: StateDict, prefix: str, inputs: Multiplicities, outputs: Multiplicities
) -> Parameters:
    """Parameters of an `EquivariantLinear`.

    Args:
        state: the state dict.
        prefix: name of the e3nn layer.
        inputs: channels per degree of its input.
        outputs: channels per degree of its output.
    """
    shapes = {f"degree_{l}": (inputs[l], outputs[l]) for l in inputs if l in outputs}
    params = _split(_take(state, f"{prefix}.weight"), shapes, prefix)
    bias = np.asarray(state.get(f"{prefix}.bias", np.zeros(0)))
    return {**params, "bias": bias} if bias.size else params


def element_linear(
    state: StateDict,
    prefix: str,
    inputs: Multiplicities,
    outputs: Multiplicities,
    num_elements: int,
) -> Parameters:
    """Parameters of an `ElementLinear` from a fully connected product with one-hot elements."""
    shapes = {f"degree_{l}": (inputs[l], num_elements, outputs[l]) for l in inputs if l in outputs}
    return _split(_take(state, f"{prefix}.weight"), shapes, prefix)


def fully_connected_tensor_product(
    state: StateDict,
    prefix: str,
    left: Multiplicities,
    right: Multiplicities,
    outputs: Multiplicities,
) -> Parameters:
    """Parameters of a `FullyConnectedTensorProduct`."""
    shapes = {
        f"degrees_{l1}_{l2}_{l3}": (left[l1], right[l2], outputs[l3])
        for l1 in left
        for l2 in right
        for l3 in outputs
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    }
    name = f"{prefix}.weight" if prefix else "weight"
    return _split(_take(state, name), shapes, name)


def radial_network(state: StateDict, prefix: str) -> Parameters:
    """Parameters of a `RadialNetwork`."""
    params: Parameters = {}
    while f"{prefix}layer{len(params)}.weight" in state:
        index = len(params)
        params[f"layer_{index}"] = _take(state, f"{prefix}layer{index}.weight")
    if not params:
        raise WeightImportError(f"state dict has no '{prefix}layer0.weight'")
    return params


def symmetric_contraction(
    state: StateDict, prefix: str, max_degree_out: int, correlation: int
) -> Parameters:
    """Parameters of a `SymmetricContraction`; the state dict lists the highest order first."""
    params: Parameters = {}
    for degree in range(max_degree_out + 1):
        contraction = f"{prefix}.contractions.{degree}"
        for order in range(1, correlation + 1):
            name = "weights_max" if order == correlation else f"weights.{correlation - 1 - order}"
            params[f"degree_{degree}_order_{order}"] = _take(state, f"{contraction}.{name}")
    return params


def product_basis(
    state: StateDict, prefix: str, channels: int, max_degree_out: int, correlation: int
) -> Parameters:
    """Parameters of a `ProductBasis`."""
    uniform = dict.fromkeys(range(max_degree_out + 1), channels)
    return {
        "contraction": symmetric_contraction(
            state, f"{prefix}symmetric_contractions", max_degree_out, correlation
        ),
        "linear": linear(state, f"{prefix}linear", uniform, uniform),
    }


def interaction(
    state: StateDict,
    prefix: str,
    *,
    kind: str,
    features: Multiplicities,
    skip_multiplicities: Multiplicities,
    max_edge_degree: int,
    max_message_degree: int,
    num_elements: int,
) -> Parameters:
    """Parameters of an `Interaction`.

    Args:
        state: the state dict.
        prefix: name of the block, with a trailing dot unless empty.
        kind: interaction class.
        features: channels per degree of the node features.
        skip_multiplicities: output of the skip connection of residual classes.
        max_edge_degree: highest degree of the harmonics.
        max_message_degree: highest degree of the messages.
        num_elements: number of elements.
    """
    channels = features[0]
    paths = message_paths(tuple(features), max_edge_degree, max_message_degree)
    messages = dict.fromkeys(range(max_message_degree + 1), channels)
    aggregated = {
        degree: channels * sum(path[2] == degree for path in paths) for degree in messages
    }
    properties = INTERACTIONS[kind]
    skip_in, skip_out = (
        (features, skip_multiplicities) if properties.residual else (messages, messages)
    )
    params = {
        "linear_up": linear(state, f"{prefix}linear_up", features, features),
        "radial": radial_network(state, f"{prefix}conv_tp_weights."),
        "linear": linear(state, f"{prefix}linear", aggregated, messages),
        "skip": element_linear(state, f"{prefix}skip_tp", skip_in, skip_out, num_elements),
    }
    if properties.density:
        params["density"] = radial_network(state, f"{prefix}density_fn.")
    return params


def nonlinear_readout(
    state: StateDict,
    prefix: str,
    inputs: Multiplicities,
    hidden: Multiplicities,
    outputs: Multiplicities,
    *,
    hidden_names: tuple[str, ...] = ("linear_1",),
) -> Parameters:
    """Parameters of a `NonlinearReadout`.

    Args:
        state: the state dict.
        prefix: name of the block, with a trailing dot unless empty.
        inputs: channels per degree of the input.
        hidden: channels per degree of the hidden layers.
        outputs: channels per degree of the output.
        hidden_names: names of the hidden linear layers.
    """
    params: Parameters = {}
    wide = GatedNonlinearity.with_gates(hidden)
    for index, name in enumerate(hidden_names):
        params[f"hidden_{index}"] = linear(state, f"{prefix}{name}", inputs, wide)
        inputs = hidden
    params["linear"] = linear(state, f"{prefix}linear_2", inputs, outputs)
    return params


def polarizability_readout(state: StateDict, prefix: str, inputs: Multiplicities) -> Parameters:
    """Parameters of a `PolarizabilityReadout`."""
    outputs = {0: 1, 2: 1}
    # e3nn lists the products of equal degrees in the order of the input degrees
    blocks = [(l, out) for l in inputs for out in (0, 2) if out <= 2 * l]
    shapes = {f"{l}_{out}": (inputs[l], 1) for l, out in blocks}
    cut = _split(_take(state, f"{prefix}linear2.weight"), shapes, f"{prefix}linear2")
    return {
        "linear_1": linear(state, f"{prefix}linear1", inputs, inputs),
        "linear_2": {
            f"degree_{out}": np.concatenate([cut[f"{l}_{o}"] for l, o in blocks if o == out])
            for out in outputs
        },
        "linear_bypass": linear(state, f"{prefix}bypass_linear", inputs, outputs),
    }


def backbone(state: StateDict, settings: BackboneSettings) -> Parameters:
    """Parameters of a `MACEBackbone`."""
    channels, num_elements = settings.channels, len(settings.elements)
    shape = (num_elements, channels)
    params: Parameters = {
        "embedding": _split(_take(state, f"{_EMBEDDING}.weight"), {"weight": shape}, _EMBEDDING)
    }
    features: Multiplicities = {0: channels}
    for layer in range(settings.num_interactions):
        max_degree = settings.layer_max_degree(layer)
        kept = dict.fromkeys(range(max_degree + 1), channels)
        params[f"interaction_{layer}"] = interaction(
            state,
            f"interactions.{layer}.",
            kind=settings.interaction_first if layer == 0 else settings.interaction,
            features=features,
            skip_multiplicities=kept,
            max_edge_degree=settings.max_ell,
            max_message_degree=settings.max_ell,
            num_elements=num_elements,
        )
        params[f"product_{layer}"] = product_basis(
            state, f"products.{layer}.", channels, max_degree, settings.correlation
        )
        features = kept
        readout = f"readouts.{layer}."
        if f"{readout}linear_1.weight" in state:
            hidden = parse_multiplicities(settings.MLP_irreps, option="MLP_irreps")
            params[f"readout_{layer}"] = nonlinear_readout(state, readout, features, hidden, {0: 1})
        else:
            params[f"readout_{layer}"] = {
                "linear": linear(state, f"{readout}linear", features, {0: 1})
            }
    return params


def import_parameters(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of a model from a PyTorch state dict.

    Args:
        state: arrays by their PyTorch names.
        settings: the model that the weights belong to.

    Raises:
        WeightImportError: a weight is missing, has the wrong shape, or belongs to a layer that the
            model does not have.
    """
    num_interactions = settings.backbone.num_interactions
    if f"interactions.{num_interactions}.linear_up.weight" in state:
        raise WeightImportError(
            f"state dict: expected {num_interactions} interactions, found more "
            f"('interactions.{num_interactions}.linear_up.weight')"
        )
    params: Parameters = {"backbone": backbone(state, settings.backbone)}
    if settings.electrostatics is not None:
        one_of_each = dict.fromkeys(range(settings.electrostatics.max_l + 1), 1)
        for layer in range(num_interactions):
            max_degree = settings.backbone.layer_max_degree(layer)
            features = dict.fromkeys(range(max_degree + 1), settings.backbone.channels)
            params[f"multipole_readout_{layer}"] = {
                "linear": linear(state, f"lr_source_maps.{layer}.linear", features, one_of_each)
            }
    _check_shapes(params, settings)
    return params


def _check_shapes(params: Parameters, settings: ModelSettings) -> None:
    """Refuse parameters of other names or shapes than those of the model."""
    single_atom = ase.Atoms(numbers=settings.elements[:1])
    structure = prepare(
        from_atoms(single_atom), elements=settings.elements, cutoff=settings.backbone.r_max
    )
    graph = collate([structure], labels=False)
    expected = jax.eval_shape(build(settings).init, jax.random.key(0), graph)["params"]
    shapes = {
        name: {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for name, tree in (("expected", expected), ("found", params))
    }
    for name in sorted(shapes["expected"].keys() | shapes["found"].keys()):
        wanted, found = (shapes[which].get(name, "none") for which in ("expected", "found"))
        if wanted != found:
            raise WeightImportError(f"{name}: expected the shape {wanted}, found {found}")
