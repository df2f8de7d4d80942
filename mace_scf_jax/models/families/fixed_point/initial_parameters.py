"""The parameters that training of a fixed-point model starts with."""

from __future__ import annotations

import logging
from typing import Any

import jax

from mace_scf_jax.models.family import Parameters

logger = logging.getLogger(__name__)


def scale_charge_heads(parameters: Parameters, options: Any) -> Parameters:
    """Initial parameters with small local multipoles and a small answer to the potential.

    So the first self-consistent cycles are far from diverging.

    Args:
        parameters: random ones.
        options: ``fixedpoint_initial_charge_head_scale`` multiplies the last layers that give
            multipoles; 1 changes nothing.
    """
    scale = options.fixedpoint_initial_charge_head_scale
    if scale == 1.0:
        return parameters

    def scaled(layer: Any) -> Any:
        return jax.tree.map(lambda weights: scale * weights, layer)

    changed = dict(parameters)
    for name, layers in parameters.items():
        if name.startswith("multipole_readout_"):
            changed[name] = {**layers, "linear": scaled(layers["linear"])}
    update = parameters["density_update"]
    response = {**update["response"], "output": scaled(update["response"]["output"])}
    changed["density_update"] = {**update, "response": response}
    logger.info("Initial weights of the charge heads are multiplied by %g", scale)
    return changed
