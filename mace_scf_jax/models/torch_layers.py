"""Weights of single layers of the PyTorch packages MACE and MACE_SCF, by their state-dict names.

e3nn stores the weights of a layer as one flat vector, block after block; here every block becomes
a matrix of our parameter tree. Normalisations agree, so numbers are copied as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mace_scf_jax.backbone.features import Multiplicities
from mace_scf_jax.backbone.interaction import INTERACTIONS
from mace_scf_jax.backbone.messages import message_paths
from mace_scf_jax.backbone.readout import GatedNonlinearity

StateDict = Mapping[str, np.ndarray]
Parameters = dict[str, Any]


class WeightImportError(ValueError):
    """A PyTorch state dict does not hold the weights of the model it is said to be."""


def take(state: StateDict, name: str) -> np.ndarray:
    """A weight in double precision, refused if it is missing."""
    if name not in state:
        raise WeightImportError(f"state dict has no {name!r}")
    return np.asarray(state[name], dtype=np.float64)


def split(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]], name: str) -> Parameters:
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
    params = split(take(state, f"{prefix}.weight"), shapes, prefix)
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
    return split(take(state, f"{prefix}.weight"), shapes, prefix)


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
    return split(take(state, name), shapes, name)


def radial_network(state: StateDict, prefix: str) -> Parameters:
    """Parameters of a `RadialNetwork`."""
    params: Parameters = {}
    while f"{prefix}layer{len(params)}.weight" in state:
        index = len(params)
        params[f"layer_{index}"] = take(state, f"{prefix}layer{index}.weight")
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
            params[f"degree_{degree}_order_{order}"] = take(state, f"{contraction}.{name}")
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
    cut = split(take(state, f"{prefix}linear2.weight"), shapes, f"{prefix}linear2")
    return {
        "linear_1": linear(state, f"{prefix}linear1", inputs, inputs),
        "linear_2": {
            f"degree_{out}": np.concatenate([cut[f"{l}_{o}"] for l, o in blocks if o == out])
            for out in outputs
        },
        "linear_bypass": linear(state, f"{prefix}bypass_linear", inputs, outputs),
    }
