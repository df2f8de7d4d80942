"""The electrostatics of a family with charges, as training asks for it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from mace_scf_jax.electrostatics import ElectrostaticsSettings, resolve_boundary
from mace_scf_jax.models.family import Family
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import PositiveNumber, WholeNumberFromZero


class ElectrostaticsOptions(OptionGroup):
    """Charge density and electrostatics"""

    decide_weights = False

    atomic_multipoles_max_l: Annotated[WholeNumberFromZero, Field(le=1)] = Field(
        default=1, description="highest atomic multipole: 0 charges, 1 charges and dipoles"
    )
    atomic_multipoles_smearing_width: PositiveNumber = Field(
        default=1.5, description="width σ of the Gaussian multipoles, in Å"
    )
    kspace_cutoff_factor: PositiveNumber = Field(
        default=1.25, description="multiplies the reciprocal cutoff 2.25 (l + 1)^0.3 / σ"
    )
    electrostatic_pbc_method: Literal[
        "exact", "realspace", "pbc", "slab", "molecule_in_box", "mixed_periodic", "auto"
    ] = Field(
        default="exact",
        description="boundary conditions of the Coulomb energy; exact: by the periodic directions "
        "of each structure, the others are those of MACE_SCF; auto: mixed_periodic if any "
        "structure is periodic, else realspace",
    )
    include_electrostatic_self_interaction: bool = Field(
        default=True, description="include the energy of each atom's density with itself"
    )
    sums: Literal["auto", "direct", "mesh"] = Field(
        default="auto",
        description="how periodic Coulomb sums are done: direct, over wavevectors; on a mesh; or "
        "auto, by the number of atoms of the largest structure",
    )
    mesh_accuracy: Annotated[PositiveNumber, Field(lt=1)] = Field(
        default=1e-5, description="relative accuracy of energies and features on a mesh"
    )


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
        features=family.settings.field_features(options),
        sums=options.sums,
        mesh_accuracy=options.mesh_accuracy,
        surplus_at_centre=True,
    )


class HardnessOptions(OptionGroup):
    """Hardness (MACEQEq, EnergyFunctional)"""

    decide_weights = False

    default_hardness: PositiveNumber = Field(
        default=2.0,
        description="hardness of every atom in eV/e², unless it is read; EnergyFunctional: before "
        "learning",
    )


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
