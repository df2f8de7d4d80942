"""Settings of the electrostatic energy and of the field features, validated when made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics.choices import MAX_L, SummationMethod
from mace_scf_jax.electrostatics.gaussians import Receivers
from mace_scf_jax.electrostatics.harmonics import num_components
from mace_scf_jax.electrostatics.sums.direct import Fade
from mace_scf_jax.electrostatics.sums.truncation import TAILS


class ElectrostaticsSettingsError(ValueError):
    """A setting of the electrostatics has a value that makes no sense."""


def _require_degree(name: str, value: object) -> None:
    if not isinstance(value, int) or not 0 <= value <= MAX_L:
        raise ElectrostaticsSettingsError(
            f"{name} must be an integer from 0 to {MAX_L}, found {value!r}"
        )


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ElectrostaticsSettingsError(f"{name} must be positive and finite, found {value!r}")


@dataclasses.dataclass(frozen=True)
class FieldFeatureSettings(Receivers):
    """Field features: the potential projected on Gaussian receivers at each atom."""

    displacement: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(float(width) for width in self.widths))
        _require_degree("features.max_l", self.max_l)
        if not self.widths:
            raise ElectrostaticsSettingsError("features.widths must name at least one width")
        for width in self.widths:
            _require_positive("features.widths", width)

    @property
    def num_features(self) -> int:
        """Number of features per atom."""
        return len(self.widths) * num_components(self.max_l)


@dataclasses.dataclass(frozen=True)
class ElectrostaticsSettings:
    """Density of Gaussian multipoles, boundary condition and reciprocal-space resolution."""

    max_l: int
    """Highest degree of the atomic multipoles."""
    smearing_width: float
    """Width σ of the atomic Gaussians in Å."""
    kspace_cutoff_factor: float = 1.25
    """Scales the reciprocal-space cutoff."""
    boundary: BoundaryMode = BoundaryMode.MIXED_PERIODIC
    """Boundary condition (a `BoundaryMode` or its name)."""
    include_self_interaction: bool = True
    """Whether the energy contains each Gaussian's interaction with itself."""
    features: FieldFeatureSettings | None = None
    """Field features, if a model uses them; their widths and degree enter the cutoff."""
    molecule_exponent: float = 1.0 / 3.0
    """Exponent in L = Ω^x of the molecule correction (the PyTorch reference rounds 1/3)."""
    kspace_fade: float = 0.0
    """Relative width of the range of |k| above the cutoff over which terms fade out. With 0 the
    cutoff is sharp, and energies jump where a changing cell gains or loses wavevectors."""
    sums: SummationMethod = SummationMethod.DIRECT
    """How periodic sums are done (a `SummationMethod` or its name)."""
    mesh_accuracy: float = 1e-5
    """Relative accuracy of all outputs that a mesh is chosen for."""
    surplus_at_centre: bool = False
    """Whether charge beyond the total charge of a structure counts, in the dipole and in a field,
    as if it sat at the centre of the atoms. So forces do not depend on the origin; an ion still
    feels Q E. False in models from before there was a choice."""
    eps_infty: float = 1.0
    """High-frequency dielectric constant ε∞, whose root the multipoles are too small by: the dipole
    is √ε∞ times that of the multipoles, whose Coulomb energy stays as it is."""
    keep_neutral: bool = False
    """Whether, in a field, what moves with a structure as a whole is its total charge, so that
    forces add up to it; dipoles and Born charges are reported as they are."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "boundary", BoundaryMode(self.boundary))
        except ValueError as error:
            raise ElectrostaticsSettingsError(
                f"boundary must be one of {', '.join(mode.value for mode in BoundaryMode)}, "
                f"found {self.boundary!r}"
            ) from error
        _require_degree("max_l", self.max_l)
        highest = max(self.max_l, 0 if self.features is None else self.features.max_l)
        if self.boundary is BoundaryMode.DISPLACED_CHARGES and highest > 1:
            raise ElectrostaticsSettingsError(
                "boundary displaced_charges: expected charges and dipoles, max_l at most 1, found "
                f"{highest}"
            )
        _require_positive("smearing_width", self.smearing_width)
        _require_positive("kspace_cutoff_factor", self.kspace_cutoff_factor)
        try:
            object.__setattr__(self, "sums", SummationMethod(self.sums))
        except ValueError as error:
            raise ElectrostaticsSettingsError(
                f"sums must be one of {', '.join(method.value for method in SummationMethod)}, "
                f"found {self.sums!r}"
            ) from error
        _require_positive("mesh_accuracy", self.mesh_accuracy)
        _require_positive("eps_infty", self.eps_infty)
        _require_positive("molecule_exponent", self.molecule_exponent)
        if not (math.isfinite(self.kspace_fade) and self.kspace_fade >= 0.0):
            raise ElectrostaticsSettingsError(
                f"kspace_fade must be finite and not negative, found {self.kspace_fade!r}"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ElectrostaticsSettings:
        """Settings from plain data, also that of earlier versions (`method` and `mesh`).

        Raises:
            TypeError: a field is missing or unknown.
            ElectrostaticsSettingsError: a field is invalid.
        """
        values = {name: value for name, value in data.items() if name not in ("method", "mesh")}
        if "method" in data:
            values["sums"] = data["method"]
        if values.get("features") is not None:
            values["features"] = FieldFeatureSettings(**values["features"])
        return cls(**values)

    @property
    def num_multipoles(self) -> int:
        """Number of multipole components per atom."""
        return num_components(self.max_l)

    @property
    def receivers(self) -> FieldFeatureSettings:
        """The receivers of field features.

        Raises:
            ElectrostaticsSettingsError: there are none.
        """
        if self.features is None:
            raise ElectrostaticsSettingsError(
                "field features were asked for, but features is not set"
            )
        return self.features

    @property
    def own_receivers(self) -> Receivers:
        """The density as receivers of its own potential: their projections make its energy."""
        return Receivers(self.max_l, (self.smearing_width,), self.include_self_interaction)

    @property
    def kspace_cutoff(self) -> float:
        """Largest |k| in 1/Å, set by the narrowest Gaussian and the highest degree in use."""
        return self._full_weight_cutoff * (1.0 + self.kspace_fade)

    @property
    def indices_cutoff(self) -> float | None:
        """Radius in 1/Å up to which structures need reciprocal indices; None if no sum uses any."""
        if self.boundary is BoundaryMode.REALSPACE or self.sums is SummationMethod.MESH:
            return None
        return self.kspace_cutoff

    @property
    def tails(self) -> float | None:
        """Length in Å to which Gaussians reach, by which slabs are repeated in boundary conditions
        of each structure's periodicity; None in others."""
        if not self.boundary.is_by_periodicity:
            return None
        receivers = () if self.features is None else self.features.widths
        return TAILS * math.hypot(self.smearing_width, max((self.smearing_width, *receivers)))

    @property
    def fade(self) -> Fade | None:
        """Where terms fade out; None with sharp cutoff."""
        if self.kspace_fade == 0.0:
            return None
        return Fade(start=self._full_weight_cutoff, end=self.kspace_cutoff)

    @property
    def _full_weight_cutoff(self) -> float:
        """Largest |k| in 1/Å whose term counts fully."""
        widths: tuple[float, ...] = (self.smearing_width,)
        highest_l = self.max_l
        if self.features is not None:
            widths += self.features.widths
            highest_l = max(highest_l, self.features.max_l)
        return self.kspace_cutoff_factor * 0.75 * 3.0 / min(widths) * (highest_l + 1) ** 0.3
