"""What the backbone of a model computes, whatever its family makes of it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.graph import Graph

_BACKBONE = "backbone"
"""Name of the backbone within the modules of all families."""


def backbone_output(module: nn.Module, params: dict[str, Any], graph: Graph) -> BackboneOutput:
    """Return what the backbone gives for a batch within the module of a family.

    Where that is compiled, nothing else of the module is computed.

    Args:
        module: of a model, as `build` makes it.
        params: of the model.
    """

    def is_backbone(part: nn.Module, method: str) -> bool:
        return part.path == (_BACKBONE,) and method == "__call__"

    _, captured = module.apply({"params": params}, graph, capture_intermediates=is_backbone)
    (output,) = captured["intermediates"][_BACKBONE]["__call__"]
    return output
