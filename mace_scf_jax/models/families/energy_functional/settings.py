"""Settings of the learned energy functional."""

from __future__ import annotations

import dataclasses

from mace_scf_jax.models.electrostatics import check_hardness
from mace_scf_jax.models.family import FamilySettings
from mace_scf_jax.models.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class EnergyFunctionalSettings(FamilySettings):
    """Where the learned functional starts, what it can express, and how it is minimised.

    Raises:
        ValueError: the default hardness or a size is not positive.
    """

    default_hardness: float = 2.0
    """Stiffness of every multipole before learning, in eV/e²."""
    num_directions: int = 4
    """Number of learned directions per atom along which its multipoles are stiffer."""
    dense_max_unknowns: int = 128
    """Largest (padded) number of multipoles of a structure for which matrices are written out."""
    max_steps: int = 50
    """Newton steps after which the minimisation ends."""

    def __post_init__(self) -> None:
        check_hardness(self.default_hardness)
        for name in ("num_directions", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)!r}")

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse electrostatics without which the energy may have no minimum."""
        if not settings.density.include_self_interaction:
            raise ValueError(
                "model EnergyFunctional: expected include_electrostatic_self_interaction: true, "
                "because the energy has no minimum for certain without it"
            )
