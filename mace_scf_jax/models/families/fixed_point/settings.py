"""Settings of the fixed-point family: how multipoles answer a potential, and what that costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from mace_scf_jax.hints import unknown_name

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
FIELD_READOUTS = (
    "NullFieldReadout",
    "StrictQuadraticFieldEnergyReadout",
    "OneBodyMLPFieldReadout",
    "LinearChargesEnergyReadout",
    "QuadraticChargesEnergyReadout",
    "ManyBodyChargesReadout",
    "ManyBodyChargesFieldReadout",
)
"""Names of energy readouts of the solved multipoles."""


def _require_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(unknown_name(name, value, choices))


@dataclasses.dataclass(frozen=True)
class FixedPointSettings:
    """Choices and constants of a `FixedPoint` model.

    Raises:
        ValueError: a name is unknown, or a number is out of range.
    """

    field_feature_norms: tuple[float, ...]
    """What field features are divided by: one number for each degree and width, widths fastest."""
    fermi_level_offset: float
    """Fermi level in eV at which it causes no field features."""
    update: str = "OneBodyVariableUpdate"
    """How a potential changes multipoles; a name in `UPDATES`."""
    potential_embedding: str = "BiasedLinearPotentialEmbedding"
    """How the potential enters the update; a name in `POTENTIAL_EMBEDDINGS`."""
    nonlinearity: str = "NoNonLinearity"
    """What is applied to the invariants of the update; a name in `NONLINEARITIES`."""
    correlation: int = 1
    """Highest order of the products of `ManyBodyUpdate`."""
    skip_connection: bool = True
    """Whether the product of `ManyBodyUpdate` has a skip connection."""
    field_readout: str = "StrictQuadraticFieldEnergyReadout"
    """Energy of the multipoles in their potential; a name in `FIELD_READOUTS`."""
    include_field_energy: bool = True
    """Whether that energy is part of the total energy."""
    linear_local_multipoles: bool = False
    """Read local multipoles linearly, scaled by element, instead of with two hidden layers."""
    atom_density_scaling: tuple[float, ...] | None = None
    """Scale of the multipoles of each element: of linear local ones, and of their change in scaled
    updates; without effect otherwise."""

    def __post_init__(self) -> None:
        for name in ("field_feature_norms", "atom_density_scaling"):
            values = getattr(self, name)
            if values is None:
                continue
            object.__setattr__(self, name, tuple(float(value) for value in values))
            if not all(math.isfinite(value) and value > 0.0 for value in getattr(self, name)):
                raise ValueError(f"{name}: expected positive numbers, found {values!r}")
        if not math.isfinite(self.fermi_level_offset):
            raise ValueError(
                f"fermi_level_offset: expected a number (eV), found {self.fermi_level_offset!r}"
            )
        _require_choice("update", self.update, UPDATES)
        _require_choice("potential_embedding", self.potential_embedding, POTENTIAL_EMBEDDINGS)
        _require_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        _require_choice("field_readout", self.field_readout, FIELD_READOUTS)
        if not 1 <= self.correlation <= 4:
            raise ValueError(f"correlation: expected 1, 2, 3 or 4, found {self.correlation!r}")
        if self.needs_scaling and self.atom_density_scaling is None:
            raise ValueError(
                "atom_density_scaling: linear local multipoles and scaled updates need a scale for "
                "every element, found none"
            )

    @property
    def needs_scaling(self) -> bool:
        """Whether multipoles are scaled by element."""
        return self.linear_local_multipoles or self.update in SCALED_UPDATES

    @property
    def is_one_body(self) -> bool:
        """Whether an atom answers the potential at its own site alone."""
        return self.update != "ManyBodyUpdate"

    @property
    def is_affine(self) -> bool:
        """Whether the update is an affine function of the potential, one linear solve away."""
        return (
            self.is_one_body
            and self.nonlinearity in LINEAR_NONLINEARITIES
            and self.potential_embedding != "TanhPotentialEmbedding"
        )
