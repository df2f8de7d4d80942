"""What options of FixedPoint may choose from, by name."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from mace_scf_jax.registry import Registry

if TYPE_CHECKING:
    import flax.linen as nn

SCALED_UPDATES = ("OneBodyScaledNonLinearUpdate", "OneBodyScaledDPNonLinearUpdate")
"""Names of density updates with a scale for each element."""
UPDATES = ("OneBodyVariableUpdate", *SCALED_UPDATES, "ManyBodyUpdate")
"""Names of density updates."""

POTENTIAL_EMBEDDINGS = (
    "LinearPotentialEmbedding",
    "BiasedLinearPotentialEmbedding",
    "TanhPotentialEmbedding",
)
"""Names of potential embeddings."""

LINEAR_NONLINEARITIES = ("NoNonLinearity", "ShallowNonLinearity")
"""Those that are linear."""
NONLINEARITIES = (*LINEAR_NONLINEARITIES, "MLPNonLinearity", "SkipMLPLinearity")
"""Names of nonlinearities of the invariant descriptors."""


class InitialDensity(enum.StrEnum):
    """Where the search for the multipoles starts."""

    LOCAL_GUESS = "local_guess"
    """The multipoles that the atoms have without a potential, a function of the geometry."""
    FROM_DATA = "from_data"
    """The reference multipoles of the batch; zero where there are none."""
    ZERO = "zero"


class InitialFermiLevel(enum.StrEnum):
    """Where the search for the Fermi level starts; at given levels, the level itself."""

    FROM_DATA = "from_data"
    """The Fermi level of each structure; 0 eV where the data have none."""
    ZERO = "zero"
    """The Fermi level offset of the model, at which it causes no field features."""


@dataclasses.dataclass(frozen=True)
class FieldReadout:
    """A field readout by name."""

    name: str
    """Value of ``type`` in the option ``field_readout_config``."""
    make: Callable[[int], nn.Module]
    """From the number of elements to a module, called with `SolvedDensity`, edges and batch."""
    needs_edges: bool = False
    """Whether it passes messages along edges."""


FIELD_READOUTS: Registry[FieldReadout] = Registry(
    "field readout",
    modules=("mace_scf_jax.models.families.fixed_point.field_readouts",),
    names=(
        "NullFieldReadout",
        "StrictQuadraticFieldEnergyReadout",
        "OneBodyMLPFieldReadout",
        "LinearChargesEnergyReadout",
        "QuadraticChargesEnergyReadout",
        "ManyBodyChargesReadout",
        "ManyBodyChargesFieldReadout",
    ),
)
"""All field readouts; plugins add theirs."""
