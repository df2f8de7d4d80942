"""Training: `train` and `train_committee` take a configuration and leave model files behind.

The rooms build on each other in this order: `losses`, `optimise`, `loop`, `records`, `config`.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "TrainOptions": "config.options",
    "TrainingHistory": "records.history",
    "TrainingResult": "run",
    "train": "run",
    "train_committee": "committee",
}

__all__ = ["TrainOptions", "TrainingHistory", "TrainingResult", "train", "train_committee"]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: all of training takes a while."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """All names, those of what is imported when first used among them."""
    return sorted({*globals(), *_PUBLIC})
