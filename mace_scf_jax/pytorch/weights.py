"""Weights of whole models of the PyTorch packages MACE and MACE_SCF, by their state-dict names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ase
import jax
import numpy as np
from jaxtyping import Array

from mace_scf_jax.backbones import ChebyshevSettings
from mace_scf_jax.backbones.mace.messages import message_paths
from mace_scf_jax.backbones.mace.settings import MACESettings
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.layers.notation import Multiplicities, parse_multiplicities
from mace_scf_jax.models.families.split_charges.options import (
    NO_MIXER,
    PRODUCT_MIXER,
    TRANSFER_BLOCKS,
)
from mace_scf_jax.models.families.split_charges.oxidation_states import NUM_POLYNOMIALS
from mace_scf_jax.models.settings import ModelSettings, build
from mace_scf_jax.pytorch.configuration import require_counterpart
from mace_scf_jax.pytorch.layers import (
    Parameters,
    StateDict,
    WeightImportError,
    WeightLayout,
    element_embedding,
    fully_connected_tensor_product,
    input_embedding,
    interaction,
    linear,
    nonlinear_readout,
    polarizability_readout,
    product_basis,
    radial_network,
    refuse,
    take_blocks,
)
from mace_scf_jax.pytorch.weights_aenet import aenet_parameters
from mace_scf_jax.pytorch.weights_fixed_point import fixed_point
from mace_scf_jax.pytorch.weights_polar_mace import polar_mace


def split_charges(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of a `LocalSplitCharges` besides those of its backbone."""
    options, backbone = settings.own, settings.backbone
    max_l = settings.electrostatics.max_l
    params: Parameters = {}
    if options.oxidation_state_mixer != NO_MIXER:
        params["oxidation_state_mixer"] = oxidation_state_mixer(
            state, "oxidation_state_mixer.", options.oxidation_state_mixer, backbone.channels
        )
    for layer in range(backbone.num_interactions):
        features = backbone.layer_multiplicities(layer)
        prefix = f"lr_source_maps.{layer}."
        params[f"bond_transfer_{layer}"] = bond_transfer(
            state,
            prefix,
            kind=options.transfer_block,
            features=features,
            max_edge_degree=backbone.max_ell,
            radial_basis=backbone.num_radial_basis,
        )
        if TRANSFER_BLOCKS[options.transfer_block].oxidation_dependent:
            params[f"oxidation_state_gate_{layer}"] = oxidation_state_gate(state, prefix, features)
        if max_l > 0:
            multipoles = dict.fromkeys(range(max_l + 1), 1)
            readout = linear(state, f"{prefix}multipole_block.linear", features, multipoles)
            # the transfers replace the monopoles of the readout
            del readout["degree_0"]
            params[f"multipole_readout_{layer}"] = {"linear": readout}
        if options.polarizability:
            params[f"polarizability_readout_{layer}"] = polarizability_readout(
                state, f"polarizability_readouts.{layer}.", features
            )
    return params


def oxidation_state_embedding(state: StateDict, prefix: str, channels: int) -> Parameters:
    """Parameters of an `OxidationStateEmbedding`."""
    name = f"{prefix}oxidation_state_linear"
    return {"linear": linear(state, name, {0: NUM_POLYNOMIALS}, {0: channels}, bias=True)}


def oxidation_state_mixer(state: StateDict, prefix: str, kind: str, channels: int) -> Parameters:
    """Parameters of an `OxidationStateMixer`.

    Args:
        prefix: name of the mixer, with a trailing dot.
        kind: of the mixer.
        channels: of the features.
    """
    params: Parameters = {
        "embedding": oxidation_state_embedding(state, f"{prefix}ox_embedding.", channels)
    }
    if kind == PRODUCT_MIXER:
        scalars = {0: channels}
        params["product"] = fully_connected_tensor_product(
            state, f"{prefix}oxidation_state_tp", scalars, scalars, scalars
        )
    return params


def bond_transfer(
    state: StateDict,
    prefix: str,
    *,
    kind: str,
    features: Multiplicities,
    max_edge_degree: int,
    radial_basis: int,
) -> Parameters:
    """Parameters of a `BondTransfer`.

    Args:
        prefix: name of the block, with a trailing dot.
        kind: of the block.
        features: channels per degree of the node features.
        max_edge_degree: highest degree of the harmonics.
        radial_basis: size of the radial basis.
    """
    channels, block = features[0], TRANSFER_BLOCKS[kind]
    scalar_paths = sum(degree <= max_edge_degree for degree in features)
    # couplings to higher degrees come behind those to scalars and reach nothing
    max_degree = 0 if block.oxidation_dependent else max_edge_degree
    paths = len(message_paths(tuple(features), max_edge_degree, max_degree))
    widths = (radial_basis, *block.radial_widths, paths * channels)
    radial = radial_network(state, f"{prefix}conv_tp_weights.", widths)
    last = max(radial)
    radial[last] = np.ascontiguousarray(radial[last][:, : scalar_paths * channels])
    params: Parameters = {
        "sender": linear(state, f"{prefix}linear1", features, features),
        "receiver": linear(state, f"{prefix}linear2", features, features),
        "radial": radial,
    }
    rows = 1 if block.oxidation_dependent else scalar_paths
    return params | take_blocks(state, f"{prefix}linear.weight", {"output": (rows, channels)})


def oxidation_state_gate(state: StateDict, prefix: str, features: Multiplicities) -> Parameters:
    """Parameters of an `OxidationStateGate`.

    Args:
        prefix: name of the transfer block, with a trailing dot.
        features: channels per degree of the node features.
    """
    channels = features[0]
    name = f"{prefix}oxidation_state_tp.weight"
    shapes = {f"degree_{degree}": (count, channels) for degree, count in features.items()}
    blocks = take_blocks(state, name, shapes)
    return {
        "embedding": oxidation_state_embedding(state, prefix, channels),
        **{degree: block.T for degree, block in blocks.items()},
    }


def charge_equilibration(state: StateDict, settings: ModelSettings) -> dict[str, Any]:
    """Readouts of electronegativity and, if it is trained, of hardness.

    State dicts hold weights for the hardness also where they are not used; they are left out.

    Args:
        settings: of a model with charge equilibration.
    """
    names = {"electronegativity": "enegs_readouts", "hardness": "hardness_readouts"}
    unused = () if settings.own.train_hardness else ("hardness",)
    backbone, scalar = settings.backbone, {0: 1}
    hidden = parse_multiplicities(backbone.MLP_irreps, option="MLP_irreps")
    last = backbone.num_interactions - 1
    params = {}
    for ours, theirs in names.items():
        for layer in range(backbone.num_interactions):
            features = backbone.layer_multiplicities(layer)
            prefix = f"{theirs}.{layer}."
            if layer == last and layer > 0:
                readout = nonlinear_readout(state, prefix, features, hidden, scalar)
            else:
                readout = {"linear": linear(state, f"{prefix}linear", features, scalar)}
            if ours not in unused:
                params[f"{ours}_readout_{layer}"] = readout
    return params


_EMBEDDING = "node_embedding.linear"


def backbone(state: StateDict, settings: MACESettings) -> Parameters:
    """Parameters of a `MACEBackbone`."""
    channels, num_elements = settings.channels, len(settings.elements)
    params: Parameters = {"embedding": element_embedding(state, _EMBEDDING, num_elements, channels)}
    if settings.embedding_specs:
        params["input_embedding"] = input_embedding(
            state, "joint_embedding.", settings.embedding_specs, channels
        )
    if settings.use_embedding_readout:
        scalars, outputs = {0: channels}, {0: max(1, len(settings.heads))}
        params["embedding_readout"] = {
            "linear": linear(state, "embedding_readout.linear", scalars, outputs)
        }
    for layer in range(settings.num_interactions):
        max_degree = settings.layer_max_degree(layer)
        features = settings.layer_multiplicities(layer)
        params[f"interaction_{layer}"] = interaction(
            state,
            f"interactions.{layer}.",
            kind=settings.layer_interaction(layer),
            features=settings.layer_multiplicities(layer - 1),
            edge_multiplicities=settings.edge_multiplicities(layer),
            skip_multiplicities=features,
            max_edge_degree=settings.max_ell,
            radial_widths=(settings.num_radial_basis, *settings.radial_MLP),
            num_elements=num_elements,
        )
        params[f"product_{layer}"] = product_basis(
            state,
            f"products.{layer}.",
            channels=channels,
            max_degree_in=settings.max_ell,
            max_degree_out=max_degree,
            correlation=settings.layer_correlation(layer),
            num_elements=settings.product_elements,
        )
    for index, layer in enumerate(settings.readout_layers):
        params[f"readout_{layer}"] = energy_readout(state, f"readouts.{index}.", settings, layer)
    return params


def energy_readout(state: StateDict, prefix: str, settings: MACESettings, layer: int) -> Parameters:
    """Parameters of the energy readout of a layer.

    Args:
        prefix: name of the readout, with a trailing dot.
    """
    features = settings.layer_multiplicities(layer)
    depth, heads = settings.hidden_layers_of_readout(layer), max(1, len(settings.heads))
    if depth == 0:
        return {"linear": linear(state, f"{prefix}linear", features, {0: heads})}
    hidden = parse_multiplicities(settings.MLP_irreps, option="MLP_irreps")
    hidden = {degree: heads * channels for degree, channels in hidden.items()}
    return nonlinear_readout(
        state, prefix, features, hidden, {0: heads}, num_hidden=depth, bias=depth > 1
    )


def latent_charge_readouts(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of the charge readouts of a `MACELES`, which are copies of the energy readouts."""
    return {
        f"multipole_readout_{layer}": energy_readout(
            state, f"les_readouts.{layer}.", settings.backbone, layer
        )
        for layer in range(settings.backbone.num_interactions)
    }


def multipole_readouts(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of the multipole readouts of a `LocalCharges`."""
    if settings.own.read_like_energies:
        return latent_charge_readouts(state, settings)
    one_of_each = dict.fromkeys(range(settings.electrostatics.max_l + 1), 1)
    params: Parameters = {}
    for layer in range(settings.backbone.num_interactions):
        features = settings.backbone.layer_multiplicities(layer)
        params[f"multipole_readout_{layer}"] = {
            "linear": linear(state, f"lr_source_maps.{layer}.linear", features, one_of_each)
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
    params = _parameters(state, settings)
    _check_shapes(params, settings)
    return params


def export_weights(params: Mapping[str, Any], settings: ModelSettings) -> dict[str, np.ndarray]:
    """Weights of a model as arrays of a PyTorch state dict, the inverse of `import_parameters`.

    Args:
        params: parameters of the model.

    Returns:
        Arrays by their PyTorch names, in the precision of the parameters, bit by bit the same
        numbers. Weights that the reference has and never uses are NaN.

    Raises:
        TorchConfigurationError: the PyTorch packages have no such model.
    """
    require_counterpart(settings)
    layout = WeightLayout()
    positions = _parameters(layout, settings)
    numbers = np.full(layout.size, np.nan, dtype=jax.tree.leaves(params)[0].dtype)

    def put(where: np.ndarray, values: Array | np.ndarray) -> None:
        numbers[where] = np.asarray(values)

    jax.tree.map(put, positions, dict(params))
    return layout.cut(numbers)


_OF_FAMILY: dict[str, Callable[[StateDict, ModelSettings], Parameters]] = {
    "LocalCharges": multipole_readouts,
    "LocalSplitCharges": split_charges,
    "MACEQEq": charge_equilibration,
    "FixedPoint": fixed_point,
    "PolarMACE": polar_mace,
}
"""Parameters of families beside those of the backbone."""


def _parameters(state: StateDict, settings: ModelSettings) -> Parameters:
    """What a state dict holds, by the names of our parameters."""
    if isinstance(settings.backbone, ChebyshevSettings):
        return aenet_parameters(state, settings.backbone.descriptor.symbols)
    last = settings.backbone.num_interactions
    refuse(state, f"interactions.{last}.linear_up.weight", f"the model has {last} interactions")
    params: Parameters = {"backbone": backbone(state, settings.backbone)}
    if settings.family in _OF_FAMILY:
        params |= _OF_FAMILY[settings.family](state, settings)
    return params


def _check_shapes(params: Parameters, settings: ModelSettings) -> None:
    """Refuse parameters of other names or shapes than those of the model."""
    single_atom = ase.Atoms(numbers=settings.elements[:1])
    structure = prepare(
        from_atoms(single_atom), elements=settings.elements, cutoff=settings.backbone.r_max
    )
    graph = collate([structure], labels=False)
    if settings.heads:
        graph = graph.replace(head=np.zeros(graph.num_graphs, np.int32))
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
