"""What options of the MACE network may choose from: interactions, radial bases, transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from mace_scf_jax.registry import Registry

if TYPE_CHECKING:
    from jaxtyping import Array

DISTANCE_TRANSFORMS = ("None", "Agnesi", "Soft")


@dataclasses.dataclass(frozen=True)
class InteractionClass:
    """What distinguishes the interaction classes."""

    residual: bool
    """Element-dependent skip connection around the product; else an element-dependent map of the
    message."""
    density: bool
    """Divide by a learned neighbour density plus one; else by the average number of neighbours."""
    nonlinear: bool = False
    """A `NonlinearInteraction`, which has a density and a skip connection of its own kind."""


INTERACTIONS = {
    "RealAgnosticInteractionBlock": InteractionClass(residual=False, density=False),
    "RealAgnosticResidualInteractionBlock": InteractionClass(residual=True, density=False),
    "RealAgnosticDensityInteractionBlock": InteractionClass(residual=False, density=True),
    "RealAgnosticDensityResidualInteractionBlock": InteractionClass(residual=True, density=True),
    "RealAgnosticResidualNonLinearInteractionBlock": InteractionClass(
        residual=True, density=True, nonlinear=True
    ),
}
"""Values of the options ``interaction`` and ``interaction_first``."""

READOUT_CLASSES = {"NonLinearReadoutBlock": 1, "NonLinearBiasReadoutBlock": 2}
"""Values of the option ``readout_cls``, with their hidden layers; the second has biases."""


@dataclasses.dataclass(frozen=True)
class RadialBasis:
    """Functions of the edge length by name."""

    name: str
    """Value of the option ``radial_type``."""
    functions: Callable[[Array, float, int], Array]
    """From lengths [edges] and cutoff in Å, and the number of functions, to [edges, functions]."""
    smallest_size: int = 1
    """Number of functions that it needs at least."""


RADIAL_BASES: Registry[RadialBasis] = Registry(
    "radial basis",
    modules=("mace_scf_jax.backbones.mace.radial",),
    names=("bessel", "gaussian", "chebyshev"),
)
"""All radial bases; plugins add theirs."""
