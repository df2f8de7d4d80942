"""Weights of split charges, by their PyTorch state-dict names."""

from __future__ import annotations

import numpy as np

from mace_scf_jax.backbones.mace.messages import message_paths
from mace_scf_jax.layers.features import Multiplicities
from mace_scf_jax.models.families.split_charges.bond_transfer import TRANSFER_BLOCKS
from mace_scf_jax.models.families.split_charges.oxidation_states import (
    NO_MIXER,
    NUM_POLYNOMIALS,
    PRODUCT_MIXER,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.pytorch.layers import (
    Parameters,
    StateDict,
    fully_connected_tensor_product,
    linear,
    polarizability_readout,
    radial_network,
    take_blocks,
)


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
        degrees = range(backbone.layer_max_degree(layer) + 1)
        features = dict.fromkeys(degrees, backbone.channels)
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
