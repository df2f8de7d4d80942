"""The electrostatics of a family with charges, as training asks for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    resolve_boundary,
)
from mace_scf_jax.models.family import Family
from mace_scf_jax.models.field_feature_options import FieldFeatureOptions


def multipoles_max_l(family: Family, options: Any) -> int:
    """Return the highest degree of the multipoles that the model has and labels are read with."""
    asked = options.atomic_multipoles_max_l
    return asked if family.max_l is None else min(asked, family.max_l)


def electrostatics_settings(
    family: Family, options: Any, *, pbc: Bool[np.ndarray, "structures 3"]
) -> ElectrostaticsSettings | None:
    """Return the electrostatics that options describe; None for families without charges.

    Args:
        family: of the model.
        pbc: periodicity along x, y, z of all structures, for the boundary condition ``auto``.
    """
    if not family.is_charged:
        return None
    return ElectrostaticsSettings(
        max_l=multipoles_max_l(family, options),
        smearing_width=options.atomic_multipoles_smearing_width,
        kspace_cutoff_factor=options.kspace_cutoff_factor,
        boundary=resolve_boundary(options.electrostatic_pbc_method, pbc),
        include_self_interaction=options.include_electrostatic_self_interaction,
        features=_field_features(options) if FieldFeatureOptions in family.options else None,
        sums=options.sums,
        mesh_accuracy=options.mesh_accuracy,
        surplus_at_centre=True,
        eps_infty=options.eps_infty,
        keep_neutral=options.keep_neutral,
    )


def _field_features(options: Any) -> FieldFeatureSettings:
    """Which features of the potential a family with `FieldFeatureOptions` reads."""
    return FieldFeatureSettings(
        max_l=options.field_feature_max_l,
        widths=options.field_feature_widths,
        include_self_interaction=options.include_field_si,
    )


def electrostatics_options(settings: ElectrostaticsSettings) -> dict[str, Any]:
    """Return options that describe electrostatics, but for the features of the potential."""
    return {
        "atomic_multipoles_max_l": settings.max_l,
        "atomic_multipoles_smearing_width": settings.smearing_width,
        "kspace_cutoff_factor": settings.kspace_cutoff_factor,
        "electrostatic_pbc_method": str(settings.boundary),
        "include_electrostatic_self_interaction": settings.include_self_interaction,
        "eps_infty": settings.eps_infty,
        "keep_neutral": settings.keep_neutral,
    }


def check_hardness(hardness: float) -> None:
    """Refuse a default hardness in eV/e² that is not positive.

    Raises:
        ValueError: says what was found.
    """
    if not (math.isfinite(hardness) and hardness > 0.0):
        raise ValueError(
            "default_hardness: expected a positive number (eV/e²), because charges would "
            f"otherwise grow without limit; found {hardness!r}"
        )
