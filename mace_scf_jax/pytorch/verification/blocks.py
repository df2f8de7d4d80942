"""Recompute single layers from reference files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.backbones.mace.embedded_inputs import embedded_inputs
from mace_scf_jax.backbones.mace.input_embedding import InputEmbedding
from mace_scf_jax.backbones.mace.interaction import Interaction
from mace_scf_jax.backbones.mace.messages import Edges
from mace_scf_jax.backbones.mace.network import ProductBasis
from mace_scf_jax.backbones.mace.nonlinear_interaction import NonlinearInteraction
from mace_scf_jax.backbones.mace.pair_repulsion import pair_repulsion
from mace_scf_jax.backbones.mace.radial import RadialNetwork, radial_embedding
from mace_scf_jax.layers.features import Features, concatenate_components, from_e3nn, to_e3nn
from mace_scf_jax.layers.harmonics import edge_harmonics
from mace_scf_jax.layers.linear import EquivariantLinear, FullyConnectedTensorProduct
from mace_scf_jax.layers.notation import Multiplicities, parse_multiplicities
from mace_scf_jax.layers.readout import NonlinearReadout, PolarizabilityReadout
from mace_scf_jax.pytorch import layers as torch_layers
from mace_scf_jax.pytorch.heads import readout_slices
from mace_scf_jax.pytorch.layers import StateDict
from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFile, deviation

TOLERANCE = 1e-9

Outputs = list[Array | np.ndarray]
"""What a layer returns, in the order of the reference."""
NamedOutputs = dict[str, Array | np.ndarray]
"""Likewise, by the names of the reference."""


class UnknownBlockError(ValueError):
    """A reference file describes no layer that we know."""


def _multiplicities(
    meta: Mapping[str, Any], key: str, otherwise: Multiplicities | None = None
) -> Multiplicities:
    if otherwise is not None and meta.get(key) is None:
        return otherwise
    return parse_multiplicities(meta[key], option=key)


def _edges(file: ReferenceFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the edges by receiver, then senders and receivers in that order."""
    senders, receivers = file.inputs["edge_index"]
    order = np.argsort(receivers, kind="stable")
    return order, senders[order], receivers[order]


def _species(file: ReferenceFile) -> np.ndarray:
    return np.argmax(file.inputs["node_attrs"], axis=1)


def _linear(file: ReferenceFile) -> Outputs:
    inputs, outputs = (
        _multiplicities(file.meta, "irreps_in"),
        _multiplicities(file.meta, "irreps_out"),
    )
    state = {f"x.{name}": values for name, values in file.state.items()}
    bias = file.state.get("bias", np.zeros(0)).size > 0
    params = torch_layers.linear(state, "x", inputs, outputs, bias=bias)
    module = EquivariantLinear(outputs, bias=bias)
    x = from_e3nn(jnp.asarray(file.inputs["x"]), file.meta["irreps_in"])
    return [to_e3nn(module.apply({"params": params}, x))]


def _tensor_product(file: ReferenceFile) -> Outputs:
    left, right, outputs = (
        _multiplicities(file.meta, key) for key in ("irreps_in1", "irreps_in2", "irreps_out")
    )
    params = torch_layers.fully_connected_tensor_product(file.state, "", left, right, outputs)
    product = jax.jit(FullyConnectedTensorProduct(outputs).apply)(
        {"params": params},
        from_e3nn(jnp.asarray(file.inputs["x"]), file.meta["irreps_in1"]),
        from_e3nn(jnp.asarray(file.inputs["y"]), file.meta["irreps_in2"]),
    )
    return [to_e3nn(product)]


def _radial_network(file: ReferenceFile) -> Outputs:
    params = torch_layers.radial_network(file.state, "", file.meta["widths"])
    network = RadialNetwork(tuple(file.meta["widths"][1:]))
    return [network.apply({"params": params}, jnp.asarray(file.inputs["x"]))]


def _radial_embedding(file: ReferenceFile) -> Outputs:
    senders, receivers = file.inputs["edge_index"]
    species = _species(file)
    basis, envelope = radial_embedding(
        jnp.asarray(file.inputs["lengths"][:, 0]),
        jnp.asarray(species[senders]),
        jnp.asarray(species[receivers]),
        elements=tuple(file.meta["atomic_numbers"]),
        radial_type=file.meta["radial_type"],
        distance_transform=file.meta["distance_transform"],
        cutoff=file.meta["r_max"],
        size=file.meta["num_bessel"],
        cutoff_exponent=file.meta["num_polynomial_cutoff"],
    )
    return [basis * envelope[:, None]]


def _harmonics(file: ReferenceFile) -> Outputs:
    return [edge_harmonics(jnp.asarray(file.inputs["vectors"]), file.meta["max_ell"])]


def _pair_repulsion(file: ReferenceFile) -> Outputs:
    senders, receivers = file.inputs["edge_index"]
    species = _species(file)
    on_edges = pair_repulsion(
        jnp.asarray(file.inputs["lengths"][:, 0]),
        jnp.asarray(species[senders]),
        jnp.asarray(species[receivers]),
        elements=tuple(file.meta["atomic_numbers"]),
        cutoff_exponent=file.meta["p"],
    )
    return [np.bincount(receivers, weights=np.asarray(on_edges), minlength=len(species))]


def _interaction(file: ReferenceFile) -> Outputs:
    meta = file.meta
    features = _multiplicities(meta, "node_feats_irreps")
    targets = _multiplicities(meta, "target_irreps")
    max_edge_degree = max(_multiplicities(meta, "edge_attrs_irreps"))
    if max(targets) != max_edge_degree:
        raise UnknownBlockError(
            f"{file.path}: expected messages of the degrees of the harmonics, found "
            f"{meta['target_irreps']} and {meta['edge_attrs_irreps']}"
        )
    order, senders, receivers = _edges(file)
    sizes: dict[str, Any] = {
        "edge_multiplicities": _multiplicities(meta, "edge_irreps", features),
        "skip_multiplicities": _multiplicities(meta, "hidden_irreps", features),
        "max_edge_degree": max_edge_degree,
        "num_elements": file.inputs["node_attrs"].shape[1],
    }
    params = torch_layers.interaction(
        file.state,
        "",
        kind=meta["cls"],
        features=features,
        radial_widths=(file.inputs["edge_feats"].shape[1], *meta["radial_MLP"]),
        **sizes,
    )
    widths = {"channels": features[0], "radial_widths": tuple(meta["radial_MLP"])}
    is_nonlinear = INTERACTIONS[meta["cls"]].nonlinear
    if is_nonlinear:
        module: nn.Module = NonlinearInteraction(**sizes, **widths)
    else:
        neighbours = meta["avg_num_neighbors"]
        module = Interaction(kind=meta["cls"], avg_num_neighbors=neighbours, **sizes, **widths)
    cutoff = file.inputs.get("cutoff", np.ones((len(order), 1)))[:, 0]
    messages, skip = jax.jit(module.apply)(
        {"params": params},
        from_e3nn(jnp.asarray(file.inputs["node_feats"]), meta["node_feats_irreps"]),
        jnp.asarray(_species(file)),
        Edges(
            jnp.asarray(file.inputs["edge_attrs"][order]),
            jnp.asarray(file.inputs["edge_feats"][order]),
            jnp.asarray(senders),
            jnp.asarray(receivers),
            weight=jnp.asarray(cutoff[order]),
        ),
    )
    outputs = [jnp.swapaxes(concatenate_components(messages), 1, 2)]
    return outputs if skip is None else [*outputs, to_e3nn(skip)]


def _product(file: ReferenceFile) -> Outputs:
    meta = file.meta
    targets = _multiplicities(meta, "target_irreps")
    degrees = _multiplicities(meta, "node_feats_irreps")
    is_agnostic = meta.get("use_agnostic_product", False)
    num_elements = 1 if is_agnostic else file.inputs["node_attrs"].shape[1]
    species = np.zeros_like(_species(file)) if is_agnostic else _species(file)
    params = torch_layers.product_basis(
        file.state,
        "",
        channels=targets[0],
        max_degree_in=max(degrees),
        max_degree_out=max(targets),
        correlation=meta["correlation"],
        num_elements=num_elements,
    )
    module = ProductBasis(max(targets), meta["correlation"], num_elements)
    components = jnp.swapaxes(jnp.asarray(file.inputs["node_feats"]), 1, 2)
    messages = {degree: components[:, degree**2 : (degree + 1) ** 2] for degree in degrees}
    skip = from_e3nn(jnp.asarray(file.inputs["sc"]), meta["target_irreps"])
    features = jax.jit(module.apply)({"params": params}, messages, skip, jnp.asarray(species))
    return [to_e3nn(features)]


def _nonlinear_readout(file: ReferenceFile) -> Outputs:
    meta = file.meta
    inputs, hidden = _multiplicities(meta, "irreps_in"), _multiplicities(meta, "MLP_irreps")
    outputs = _multiplicities(meta, "irreps_out") if "irreps_out" in meta else {0: 1}
    depth = 2 if "linear_mid.weight" in file.state else 1
    params = torch_layers.nonlinear_readout(
        file.state, "", inputs, hidden, outputs, num_hidden=depth
    )
    module = NonlinearReadout(outputs, hidden, num_hidden=depth)
    x = from_e3nn(jnp.asarray(file.inputs["x"]), meta["irreps_in"])
    return [to_e3nn(jax.jit(module.apply)({"params": params}, x))]


def _readouts_with_bias(file: ReferenceFile) -> NamedOutputs:
    """Readouts of scalars, of repeated blocks, and of three heads, one by one."""
    inputs, meta = _multiplicities(file.meta, "irreps_in"), file.meta
    x = from_e3nn(jnp.asarray(file.inputs["x"]), meta["irreps_in"])

    def read(name: str, state: StateDict, hidden: Multiplicities, blocks: Sequence) -> Features:
        params = torch_layers.nonlinear_readout(
            state, f"{name}.", inputs, hidden, blocks, num_hidden=2, bias=True
        )
        outputs: dict[int, int] = {}
        for degree, count in blocks:
            outputs[degree] = outputs.get(degree, 0) + count
        return NonlinearReadout(outputs, hidden, num_hidden=2, bias=True).apply(
            {"params": params}, x
        )

    hidden = {name: _multiplicities(meta[name], "MLP_irreps") for name in ("scalar", "general")}
    scalar = read("scalar", file.state, hidden["scalar"], [(0, 2)])[0][:, 0]
    blocks = [(0, 1), (1, 1), (0, 1), (1, 1), (0, 2)]
    general = read("general", file.state, hidden["general"], blocks)
    s, v = general[0][:, 0], general[1]
    general_flat = jnp.concatenate([s[:, :1], v[..., 0], s[:, 1:2], v[..., 1], s[:, 2:]], axis=-1)

    name = "scalar_three_heads"
    heads, count = file.inputs["heads"], meta[name]["num_heads"]
    of_each = _multiplicities(meta[name], "MLP_irreps")[0] // count
    three = np.array(file.outputs[name])  # what atoms read for other heads is never used
    for head in range(count):
        slices = readout_slices(head, count, of_each)
        own = {
            entry: slices[entry.removeprefix(f"{name}.")](values.astype(np.float64))
            for entry, values in file.state.items()
            if entry.startswith(f"{name}.")
        }
        column = read(name, own, {0: of_each}, [(0, 1)])[0][:, 0, 0]
        three[heads == head, head] = np.asarray(column)[heads == head]
    return {"scalar": scalar, "general": general_flat, name: three}


def _input_embedding(file: ReferenceFile) -> Outputs:
    inputs = embedded_inputs(file.meta["embedding_specs"])
    channels = file.meta["out_dim"]
    params = torch_layers.input_embedding(file.state, "", inputs, channels)
    values = {}
    for entry in inputs:
        given = file.inputs[entry.name]
        of_atoms = given[file.inputs["batch"]] if entry.per == "graph" else given
        values[entry.name] = jnp.asarray(of_atoms.reshape(len(of_atoms), -1))
    return [InputEmbedding(inputs, channels).apply({"params": params}, values)]


def _polarizability_readout(file: ReferenceFile) -> Outputs:
    inputs = _multiplicities(file.meta, "irreps_in")
    params = torch_layers.polarizability_readout(file.state, "", inputs)
    x = from_e3nn(jnp.asarray(file.inputs["x"]), file.meta["irreps_in"])
    return [to_e3nn(jax.jit(PolarizabilityReadout().apply)({"params": params}, x))]


_BLOCKS: tuple[tuple[frozenset[str], Callable[[ReferenceFile], Outputs | NamedOutputs]], ...] = (
    (frozenset({"cls"}), _interaction),
    (frozenset({"scalar", "general"}), _readouts_with_bias),
    (frozenset({"embedding_specs", "out_dim"}), _input_embedding),
    (frozenset({"correlation", "target_irreps"}), _product),
    (frozenset({"radial_type"}), _radial_embedding),
    (frozenset({"widths"}), _radial_network),
    (frozenset({"irreps_in1"}), _tensor_product),
    (frozenset({"input_order"}), _harmonics),
    (frozenset({"p", "atomic_numbers"}), _pair_repulsion),
    (frozenset({"MLP_irreps"}), _nonlinear_readout),
    (frozenset({"irreps_in", "irreps_out"}), _linear),
    (frozenset({"irreps_in"}), _polarizability_readout),
)
"""Which entries of the metadata tell the kind of a layer; the first match counts."""


def verify_block(file: ReferenceFile) -> list[Deviation]:
    """Recompute a layer and compare every output.

    Args:
        file: a reference file of a single layer.

    Raises:
        UnknownBlockError: the file describes no layer that we know.
    """
    for keys, compute in _BLOCKS:
        if keys <= set(file.meta):
            outputs = compute(file)
            if not isinstance(outputs, Mapping):
                outputs = {str(place): values for place, values in enumerate(outputs)}
            return [
                deviation(name, outputs[name], expected, tolerance=TOLERANCE)
                for name, expected in file.outputs.items()
            ]
    raise UnknownBlockError(f"{file.path}: no known layer has the metadata {sorted(file.meta)}")
