"""Groups of parameters that an optimiser treats alike."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Parameters with one weight decay, to which a stage may give a learning rate of their own."""

    name: str
    """``<name>_lr`` is their learning rate in a stage of the schedule."""
    decay: str | None = None
    """Option that is their weight decay; None for parameters that are not decayed."""


WEIGHT_DECAY = "weight_decay"
"""The option that most decayed groups follow."""
