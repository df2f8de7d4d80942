"""Weights of MACEQEq in the PyTorch package MACE_SCF."""

from __future__ import annotations

from typing import Any

from mace_scf_jax.layers.features import parse_multiplicities
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.pytorch.layers import StateDict, linear, nonlinear_readout


def charge_equilibration(state: StateDict, settings: ModelSettings) -> dict[str, Any]:
    """Readouts of electronegativity and, if it is trained, of hardness.

    State dicts hold weights for the hardness also where they are not used; they are left out.

    Args:
        state: the state dict.
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
            degrees = range(backbone.layer_max_degree(layer) + 1)
            features = dict.fromkeys(degrees, backbone.channels)
            prefix = f"{theirs}.{layer}."
            if layer == last and layer > 0:
                readout = nonlinear_readout(state, prefix, features, hidden, scalar)
            else:
                readout = {"linear": linear(state, f"{prefix}linear", features, scalar)}
            if ours not in unused:
                params[f"{ours}_readout_{layer}"] = readout
    return params
