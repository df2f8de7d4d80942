"""Everything that defines a model but its weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from mace_scf_jax.backbones import BackboneSettings
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    Mesh,
)
from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.families.qeq.settings import ChargeEquilibrationSettings
from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A model family with its sizes, choices and constants.

    Raises:
        ValueError: the number of atomic energies or formal charges differs from the number of
            elements, or a formal charge is outside the range in which it is expanded.
    """

    family: str
    """Name in `mace_scf_jax.models.FAMILIES`."""
    backbone: BackboneSettings
    atomic_energies: tuple[float, ...]
    """Energy E0 of an isolated atom of each element in eV."""
    electrostatics: ElectrostaticsSettings | None = None
    """None for families without charges."""
    scale: float = 1.0
    """Factor on the interaction energy (ScaleShiftMACE)."""
    shift: float = 0.0
    """Energy per atom in eV added to the scaled interaction energy (ScaleShiftMACE)."""
    formal_charges: tuple[float, ...] | None = None
    """Formal charge of each element in e, for families with formal charges; None: every structure
    has its own, per atom."""
    split_charges: SplitChargeSettings | None = None
    """None for families without charge transfer."""
    charge_equilibration: ChargeEquilibrationSettings | None = None
    """None for families without charge equilibration."""
    energy_functional: EnergyFunctionalSettings | None = None
    """None for families without a learned functional of the multipoles."""
    fixed_point: FixedPointSettings | None = None
    """None for families whose multipoles do not answer their own potential."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "atomic_energies", tuple(float(e) for e in self.atomic_energies))
        if len(self.atomic_energies) != len(self.backbone.elements):
            raise ValueError(
                f"atomic_energies: expected one energy for each of the elements "
                f"{self.backbone.elements}, found {len(self.atomic_energies)}"
            )
        if self.formal_charges is not None:
            object.__setattr__(self, "formal_charges", tuple(float(q) for q in self.formal_charges))
            self._check_formal_charges(self.formal_charges)

    def _check_formal_charges(self, charges: tuple[float, ...]) -> None:
        if len(charges) != len(self.elements):
            raise ValueError(
                f"formal_charges: expected one charge for each of the elements "
                f"{self.elements}, found {len(charges)}"
            )
        if self.split_charges is None:
            return
        low, high = self.split_charges.charge_range
        for element, charge in zip(self.elements, charges, strict=True):
            if not low <= charge <= high:
                raise ValueError(
                    f"formal_charges: found {charge:g} e for element {element}, expected a charge "
                    f"in the range of oxidation states, {low:g} to {high:g} e"
                )

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return self.backbone.elements

    @property
    def kspace_cutoff(self) -> float | None:
        """Radius in 1/Å up to which structures need reciprocal indices; None if they need none."""
        return None if self.electrostatics is None else self.electrostatics.indices_cutoff

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes the same settings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSettings:
        """Settings from plain data, such as a JSON object.

        Raises:
            ValueError: a field is missing, unknown or invalid.
        """
        try:
            values = dict(data)
            values["backbone"] = BackboneSettings(**values["backbone"])
            if values.get("electrostatics") is not None:
                electrostatics = dict(values["electrostatics"])
                if electrostatics.get("features") is not None:
                    electrostatics["features"] = FieldFeatureSettings(**electrostatics["features"])
                if electrostatics.get("mesh") is not None:
                    electrostatics["mesh"] = Mesh(**electrostatics["mesh"])
                values["electrostatics"] = ElectrostaticsSettings(**electrostatics)
            if values.get("split_charges") is not None:
                values["split_charges"] = SplitChargeSettings(**values["split_charges"])
            if values.get("charge_equilibration") is not None:
                values["charge_equilibration"] = ChargeEquilibrationSettings(
                    **values["charge_equilibration"]
                )
            if values.get("fixed_point") is not None:
                values["fixed_point"] = FixedPointSettings(**values["fixed_point"])
            if values.get("energy_functional") is not None:
                values["energy_functional"] = EnergyFunctionalSettings(
                    **values["energy_functional"]
                )
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise ValueError(f"model settings: {error}") from error
