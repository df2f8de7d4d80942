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
from mace_scf_jax.backbones.mace.messages import message_paths
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


def linear(
    state: StateDict,
    prefix: str,
    inputs: Multiplicities,
    outputs: Multiplicities,
    *,
    bias: bool = False,
) -> Parameters:
    """Parameters of an `EquivariantLinear`.

    Args:
        prefix: name of the e3nn layer.
        inputs: channels per degree of its input.
        outputs: channels per degree of its output.
        bias: whether the layer adds a bias to the scalars.
    """
    shapes = {f"degree_{l}": (inputs[l], outputs[l]) for l in inputs if l in outputs}
    params: Parameters = take_blocks(state, f"{prefix}.weight", shapes)
    if bias:
        params["bias"] = take(state, f"{prefix}.bias", (outputs[0],))
    else:
        refuse(state, f"{prefix}.bias", "the model has no bias there")
    return params


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
    skip_multiplicities: Multiplicities,
    max_edge_degree: int,
    radial_widths: Sequence[int],
    num_elements: int,
) -> Parameters:
    """Parameters of an `Interaction`.

    Args:
        prefix: name of the block, with a trailing dot unless empty.
        kind: interaction class.
        features: channels per degree of the node features.
        skip_multiplicities: output of the skip connection of residual classes.
        max_edge_degree: highest degree of the harmonics and of the messages.
        radial_widths: size of the radial basis, then the hidden widths of the radial network.
        num_elements: number of elements.
    """
    channels = features[0]
    paths = message_paths(tuple(features), max_edge_degree, max_edge_degree)
    messages = dict.fromkeys(range(max_edge_degree + 1), channels)
    aggregated = {
        degree: channels * sum(path[2] == degree for path in paths) for degree in messages
    }
    properties = INTERACTIONS[kind]
    skip_in, skip_out = (
        (features, skip_multiplicities) if properties.residual else (messages, messages)
    )
    params = {
        "linear_up": linear(state, f"{prefix}linear_up", features, features),
        "radial": radial_network(
            state, f"{prefix}conv_tp_weights.", (*radial_widths, len(paths) * channels)
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
    outputs: Multiplicities,
    *,
    hidden_names: tuple[str, ...] = ("linear_1",),
) -> Parameters:
    """Parameters of a `NonlinearReadout`.

    Args:
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
    cut = take_blocks(state, f"{prefix}linear2.weight", shapes)
    return {
        "linear_1": linear(state, f"{prefix}linear1", inputs, inputs),
        "linear_2": {
            f"degree_{out}": np.concatenate([cut[f"{l}_{o}"] for l, o in blocks if o == out])
            for out in outputs
        },
        "linear_bypass": linear(state, f"{prefix}bypass_linear", inputs, outputs),
    }
