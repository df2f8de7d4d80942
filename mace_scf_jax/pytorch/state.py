"""Models of the PyTorch packages as data: a configuration and a state dict."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


class TorchModelError(ValueError):
    """A file holds no PyTorch model, or one that cannot be turned into data."""


@dataclasses.dataclass(frozen=True)
class TorchModel:
    """What defines a PyTorch model."""

    configuration: dict[str, Any]
    """Plain data; see `mace_scf_jax.pytorch.configuration`."""
    state: dict[str, np.ndarray]
    """Parameters and buffers by their state-dict names."""
