"""Weights of ænet's networks under the names of its PyTorch modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mace_scf_jax.pytorch.layers import Parameters, WeightImportError

_NAMES = re.compile(r"net\.functions\.(\d+)\.Linear_Sp\d+_F(\d+)\.(weight|bias)")
_MODULE = "net."
"""Start of the names of everything in a module of ænet."""
_PLAIN_NAMES = re.compile(r"([A-Z][a-z]?)/(weight|bias)_(\d+)")


def aenet_parameters(state: Mapping[str, np.ndarray], species: Sequence[str]) -> Parameters:
    """Parameters of a descriptor potential from a state dict.

    Args:
        state: weights [outputs, inputs] and biases by the names of ænet's modules,
            ``net.functions.<species>.Linear_Sp<k>_F<layer>.weight``, or the plain names
            ``<symbol>/weight_<layer>``.
        species: symbols in the order of ænet.

    Raises:
        WeightImportError: a name belongs to no network of these species.
    """
    networks: dict[str, dict[str, np.ndarray]] = {symbol: {} for symbol in species}
    for name, values in state.items():
        match = _NAMES.fullmatch(name)
        if name.startswith(_MODULE) and (match is None or int(match[1]) >= len(species)):
            raise WeightImportError(
                f"state dict has {name!r}, but expected are layers of {len(species)} networks"
            )
        if match:
            symbol, layer, kind = species[int(match[1])], int(match[2]) - 1, match[3]
        elif match := _PLAIN_NAMES.fullmatch(name):
            symbol, kind, layer = match[1], match[2], int(match[3])
        else:
            continue
        networks[symbol][f"{kind}_{layer}"] = np.array(values.T if kind == "weight" else values)
    return {"backbone": {"energy": networks}}
