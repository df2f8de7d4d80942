"""Weights of single layers of the PyTorch packages MACE and MACE_SCF, by their state-dict names.

e3nn stores the weights of a layer as one flat vector, block after block; here every block becomes
a matrix of our parameter tree. Normalisations agree, so numbers are copied as they are.

Every function here asks a state dict for arrays of the shapes that the settings demand and sorts
their numbers into parameters. Asked of a `WeightLayout` instead, which hands out running numbers,
the same functions tell where each parameter stands in a state dict: that is how weights get back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.backbones.mace.embedded_inputs import EmbeddedInput
from mace_scf_jax.backbones.mace.messages import message_paths
from mace_scf_jax.backbones.mace.nonlinear_interaction import DENSITY_WIDTHS
from mace_scf_jax.layers.couplings import coupling_chains
from mace_scf_jax.layers.notation import Multiplicities
from mace_scf_jax.layers.readout import GatedNonlinearity

Parameters = dict[str, Any]


class WeightImportError(ValueError):
    """A PyTorch state dict does not hold the weights of the model it is said to be."""


class WeightLayout:
    """Stands in for a state dict that is still to be written: notes what is asked for.

    Every array handed out holds running numbers, no number twice.
    """

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """How many numbers have been handed out."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def numbered(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Running numbers in the place of an array."""
        if name in self._shapes:
            raise ValueError(f"{name} is read twice")
        start = self.size
        self._shapes[name] = shape
        return np.arange(start, self.size).reshape(shape)

    def cut(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays by name from the numbers of all of them, in the order handed out."""
        arrays, start = {}, 0
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            arrays[name] = numbers[start:stop].reshape(shape)
            start = stop
        return arrays


StateDict = Mapping[str, np.ndarray] | WeightLayout


def take(state: StateDict, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in double precision, refused if it is missing or has another shape."""
    if isinstance(state, WeightLayout):
        return state.numbered(name, shape)
    if name not in state:
        raise WeightImportError(f"state dict has no {name!r}")
    found = np.asarray(state[name], dtype=np.float64)
    if found.shape != shape:
        raise WeightImportError(f"{name}: expected the shape {shape}, found {found.shape}")
    return found


def refuse(state: StateDict, name: str, reason: str) -> None:
    """Refuse weights that the model would not use."""
    if not isinstance(state, WeightLayout) and np.size(state.get(name, ())) > 0:
        raise WeightImportError(f"state dict has {name!r}, but {reason}")


def take_blocks(
    state: StateDict, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Named blocks that stand one after the other in one flat weight vector."""
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    flat = take(state, name, (sum(sizes.values()),))
    blocks, start = {}, 0
    for key, shape in shapes.items():
        blocks[key] = flat[start : start + sizes[key]].reshape(shape)
        start += sizes[key]
    return blocks


Blocks = Multiplicities | Sequence[tuple[int, int]]
"""Channels per degree, or blocks (degree, channels) of which several may have the same degree."""


def linear(
    state: StateDict,
    prefix: str,
    inputs: Blocks,
    outputs: Blocks,
    *,
    bias: bool = False,
) -> Parameters:
    """Parameters of an `EquivariantLinear`; blocks of one degree become channels of it, in order.

    Args:
        prefix: name of the e3nn layer.
        inputs: blocks of its input.
        outputs: blocks of its output.
        bias: whether the layer adds a bias to the scalars.
    """
    rows, columns = _blocks(inputs), _blocks(outputs)
    shapes = {
        f"{i}_{j}": (channels_in, channels_out)
        for i, (degree_in, channels_in) in enumerate(rows)
        for j, (degree_out, channels_out) in enumerate(columns)
        if degree_in == degree_out
    }
    cut = take_blocks(state, f"{prefix}.weight", shapes)
    params: Parameters = {}
    for degree in dict.fromkeys(degree for degree, _ in columns):
        own = [[i for i, (l, _) in enumerate(side) if l == degree] for side in (rows, columns)]
        if own[0]:
            matrices = [[cut[f"{i}_{j}"] for j in own[1]] for i in own[0]]
            params[f"degree_{degree}"] = np.block(matrices)
    if bias:
        scalars = sum(channels for degree, channels in columns if degree == 0)
        params["bias"] = take(state, f"{prefix}.bias", (scalars,))
    else:
        refuse(state, f"{prefix}.bias", "the model has no bias there")
    return params


def _blocks(blocks: Blocks) -> list[tuple[int, int]]:
    return list(blocks.items() if isinstance(blocks, Mapping) else blocks)


def element_linear(
    state: StateDict,
    prefix: str,
    inputs: Multiplicities,
    outputs: Multiplicities,
    num_elements: int,
) -> Parameters:
    """Parameters of an `ElementLinear` from a fully connected product with one-hot elements."""
    shapes = {f"degree_{l}": (inputs[l], num_elements, outputs[l]) for l in inputs if l in outputs}
    return take_blocks(state, f"{prefix}.weight", shapes)


def element_embedding(
    state: StateDict, prefix: str, num_elements: int, channels: int
) -> Parameters:
    """Parameters of an `ElementEmbedding`."""
    return take_blocks(state, f"{prefix}.weight", {"weight": (num_elements, channels)})


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
    return take_blocks(state, f"{prefix}.weight" if prefix else "weight", shapes)


def radial_network(state: StateDict, prefix: str, widths: Sequence[int]) -> Parameters:
    """Parameters of a `RadialNetwork`.

    Args:
        prefix: name of the network, with a trailing dot unless empty.
        widths: widths of the input and of every layer.
    """
    shapes = list(itertools.pairwise(widths))
    refuse(state, f"{prefix}layer{len(shapes)}.weight", f"the model has {len(shapes)} layers there")
    return {
        f"layer_{index}": take(state, f"{prefix}layer{index}.weight", shape)
        for index, shape in enumerate(shapes)
    }


def normalised_network(state: StateDict, prefix: str, widths: Sequence[int]) -> Parameters:
    """Parameters of a `NormalisedNetwork` from a sequence of PyTorch layers.

    Args:
        prefix: name of the sequence, with a trailing dot.
        widths: widths of the input and of every layer.
    """
    params: Parameters = {}
    shapes = list(itertools.pairwise(widths))
    for index, (inputs, outputs) in enumerate(shapes):
        linear_map, norm = f"{prefix}{3 * index}", f"{prefix}{3 * index + 1}"
        params[f"layer_{index}"] = take(state, f"{linear_map}.weight", (outputs, inputs)).T
        params[f"bias_{index}"] = take(state, f"{linear_map}.bias", (outputs,))
        if index + 1 < len(shapes):
            params[f"scale_{index}"] = take(state, f"{norm}.weight", (outputs,))
            params[f"shift_{index}"] = take(state, f"{norm}.bias", (outputs,))
    return params


def input_embedding(
    state: StateDict, prefix: str, inputs: Sequence[EmbeddedInput], channels: int
) -> Parameters:
    """Parameters of an `InputEmbedding`.

    Args:
        prefix: name of the block, with a trailing dot unless empty.
        inputs: that are embedded.
        channels: of the result.
    """
    params: Parameters = {}
    for entry in inputs:
        name, width = f"{prefix}embedders.{entry.name}", entry.emb_dim
        if entry.is_categorical:
            params[entry.name] = take(state, f"{name}.weight", (entry.num_classes, width))
            continue
        for layer, fan_in in enumerate((entry.in_dim, width)):
            weight = take(state, f"{name}.{2 * layer}.weight", (width, fan_in))
            params[f"{entry.name}_layer_{layer}"] = weight.T
            if entry.use_bias:
                bias = take(state, f"{name}.{2 * layer}.bias", (width,))
                params[f"{entry.name}_bias_{layer}"] = bias
    widths = sum(entry.emb_dim for entry in inputs)
    params["project"] = take(state, f"{prefix}project.0.weight", (channels, widths)).T
    return params


def product_basis(
    state: StateDict,
    prefix: str,
    *,
    channels: int,
    max_degree_in: int,
    max_degree_out: int,
    correlation: int,
    num_elements: int,
) -> Parameters:
    """Parameters of a `ProductBasis`; the state dict lists the highest order first.

    Args:
        prefix: name of the block, with a trailing dot unless empty.
        channels: channels of every degree.
        max_degree_in: highest degree of the messages.
        max_degree_out: highest degree of the output.
        correlation: highest order of the products.
        num_elements: number of elements.
    """
    uniform = dict.fromkeys(range(max_degree_out + 1), channels)
    contraction: Parameters = {}
    for degree in range(max_degree_out + 1):
        weights = f"{prefix}symmetric_contractions.contractions.{degree}.weights"
        refuse(state, f"{weights}.{correlation - 1}", f"the model has correlation {correlation}")
        for order in range(1, correlation + 1):
            paths = len(coupling_chains(max_degree_in, degree, order))
            name = (
                f"{weights}_max" if order == correlation else f"{weights}.{correlation - 1 - order}"
            )
            if paths > 0:
                shape = (num_elements, paths, channels)
                contraction[f"degree_{degree}_order_{order}"] = take(state, name, shape)
    return {
        "contraction": contraction,
        "linear": linear(state, f"{prefix}linear", uniform, uniform),
    }


def interaction(
    state: StateDict,
    prefix: str,
    *,
    kind: str,
    features: Multiplicities,
    edge_multiplicities: Multiplicities,
    skip_multiplicities: Multiplicities,
    max_edge_degree: int,
    radial_widths: Sequence[int],
    num_elements: int,
) -> Parameters:
    """Parameters of an `Interaction` or a `NonlinearInteraction`.

    Args:
        prefix: name of the block, with a trailing dot unless empty.
        kind: interaction class.
        features: channels per degree of the node features.
        edge_multiplicities: channels per degree of the features that are sent along edges.
        skip_multiplicities: output of the skip connection of residual classes.
        max_edge_degree: highest degree of the harmonics and of the messages.
        radial_widths: size of the radial basis, then the hidden widths of the radial network.
        num_elements: number of elements.
    """
    channels = features[0]
    paths = message_paths(tuple(edge_multiplicities), max_edge_degree, max_edge_degree)
    messages = dict.fromkeys(range(max_edge_degree + 1), channels)
    sent = edge_multiplicities[0]
    aggregated = [(path[2], sent) for path in paths]
    properties = INTERACTIONS[kind]
    params: Parameters = {
        "linear_up": linear(state, f"{prefix}linear_up", features, edge_multiplicities)
    }
    if properties.nonlinear:
        wide = GatedNonlinearity.with_gates(messages)
        widths = (radial_widths[0] + 2 * channels, *radial_widths[1:], len(paths) * sent)
        density = (widths[0], *DENSITY_WIDTHS)
        embeddings = {
            name: element_embedding(state, f"{prefix}{name}", num_elements, channels)
            for name in ("source_embedding", "target_embedding")
        }
        return (params | embeddings) | {
            "radial": normalised_network(state, f"{prefix}conv_tp_weights.net.", widths),
            "density": normalised_network(state, f"{prefix}density_fn.net.", density),
            "alpha": take(state, f"{prefix}alpha", ()),
            "beta": take(state, f"{prefix}beta", ()),
            "linear_1": linear(state, f"{prefix}linear_1", aggregated, wide),
            "linear_res": linear(state, f"{prefix}linear_res", edge_multiplicities, wide),
            "linear_2": linear(state, f"{prefix}linear_2", messages, messages),
            "skip": linear(state, f"{prefix}skip_tp", features, skip_multiplicities),
        }
    skip_in, skip_out = (
        (features, skip_multiplicities) if properties.residual else (messages, messages)
    )
    params |= {
        "radial": radial_network(
            state, f"{prefix}conv_tp_weights.", (*radial_widths, len(paths) * sent)
        ),
        "linear": linear(state, f"{prefix}linear", aggregated, messages),
        "skip": element_linear(state, f"{prefix}skip_tp", skip_in, skip_out, num_elements),
    }
    if properties.density:
        params["density"] = radial_network(state, f"{prefix}density_fn.", (radial_widths[0], 1))
    return params


def nonlinear_readout(
    state: StateDict,
    prefix: str,
    inputs: Multiplicities,
    hidden: Multiplicities,
    outputs: Blocks,
    *,
    num_hidden: int = 1,
    bias: bool = False,
) -> Parameters:
    """Parameters of a `NonlinearReadout`.

    Args:
        prefix: name of the block, with a trailing dot unless empty.
        inputs: channels per degree of the input.
        hidden: channels per degree of the hidden layers.
        outputs: blocks of the output.
        num_hidden: number of hidden layers, 1 or 2.
        bias: whether layers but the first add a bias to the scalars.
    """
    params: Parameters = {}
    wide = GatedNonlinearity.with_gates(hidden)
    for index, name in enumerate(("linear_1", "linear_mid")[:num_hidden]):
        params[f"hidden_{index}"] = linear(
            state, f"{prefix}{name}", inputs, wide, bias=bias and index > 0
        )
        inputs = hidden
    params["linear"] = linear(state, f"{prefix}linear_2", inputs, outputs, bias=bias)
    return params


def polarizability_readout(state: StateDict, prefix: str, inputs: Multiplicities) -> Parameters:
    """Parameters of a `PolarizabilityReadout`."""
    outputs = {0: 1, 2: 1}
    # e3nn lists the products of equal degrees in the order of the input degrees
    blocks = [(l, out) for l in inputs for out in (0, 2) if out <= 2 * l]
    shapes = {f"{l}_{out}": (inputs[l], 1) for l, out in blocks}
    cut = take_blocks(state, f"{prefix}linear2.weight", shapes)
    return {
        "linear_1": linear(state, f"{prefix}linear1", inputs, inputs),
        "linear_2": {
            f"degree_{out}": np.concatenate([cut[f"{l}_{o}"] for l, o in blocks if o == out])
            for out in outputs
        },
        "linear_bypass": linear(state, f"{prefix}bypass_linear", inputs, outputs),
    }
