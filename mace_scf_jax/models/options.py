"""Options of training that several families share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.dispersion.library import damping_parameters
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.options.values import (
    ChargesOfElements,
    NoneInText,
    PositiveNumber,
    WholeNumberFromZero,
)


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
        "exact",
        "displaced_charges",
        "realspace",
        "pbc",
        "slab",
        "molecule_in_box",
        "mixed_periodic",
        "auto",
    ] = Field(
        default="exact",
        description="boundary conditions of the Coulomb energy; exact: by the periodic directions "
        "of each structure; displaced_charges: likewise, with dipoles of open structures as in the "
        "public PolarMACE models; the others are those of MACE_SCF; auto: mixed_periodic if any "
        "structure is periodic, else realspace",
    )
    include_electrostatic_self_interaction: bool = Field(
        default=True, description="include the energy of each atom's density with itself"
    )
    eps_infty: PositiveNumber = Field(
        default=1.0,
        description="dielectric constant ε∞ of the electrons that latent multipoles contain: "
        "dipoles, Born charges and the action of a field are those of √ε∞ times the multipoles; "
        "Coulomb energies stay as they are",
    )
    keep_neutral: bool = Field(
        default=False,
        description="forces in a field add up to the total charge of a structure times the field, "
        "whatever its Born charges add up to; reported dipoles and Born charges stay as they are",
    )
    charge_sign: Literal["electronegativity", "as_trained"] = Field(
        default="electronegativity",
        description="sign of charges that the data leave open, settled when a model is saved: "
        "electronegativity, negative on electronegative elements; or as_trained",
    )
    sums: Literal["auto", "direct", "mesh"] = Field(
        default="auto",
        description="how periodic Coulomb sums are done: direct, over wavevectors; on a mesh; or "
        "auto, by the number of atoms of the largest structure",
    )
    mesh_accuracy: Annotated[PositiveNumber, Field(lt=1)] = Field(
        default=1e-5, description="relative accuracy of energies and features on a mesh"
    )


class DispersionOptions(OptionGroup):
    """Dispersion"""

    dispersion: Annotated[Literal["d3bj", "d3bjatm"] | None, NoneInText] = Field(
        default=None,
        description="dispersion energy that is a part of the model: the rest is learned, from "
        "labels without it. d3bj: D3 with Becke–Johnson damping; d3bjatm: with the three-body term",
    )
    dispersion_functional: Annotated[str | None, NoneInText] = Field(
        default=None,
        description="density functional whose parameters the dispersion has",
        examples=["pbe"],
    )
    dispersion_cutoff: Annotated[PositiveNumber | None, NoneInText] = Field(
        default=None,
        description="distance in Å up to which pairs of atoms are summed; None: 60 bohr",
    )

    def problems(self) -> list[str]:
        """Tell of a functional that is missing, unknown, or without dispersion."""
        if self.dispersion is None:
            names = ("dispersion_functional", "dispersion_cutoff")
            return [
                f"option {name!r}: found {getattr(self, name)!r} without 'dispersion'"
                for name in names
                if getattr(self, name) is not None
            ]
        if self.dispersion_functional is None:
            return ["option 'dispersion': expected the name of a 'dispersion_functional' with it"]
        try:
            damping_parameters(self.dispersion_functional.lower())
        except (ValueError, ImportError) as error:
            return [str(error)]
        return []


class HardnessOptions(OptionGroup):
    """Hardness (MACEQEq, EnergyFunctional)"""

    decide_weights = False

    default_hardness: PositiveNumber = Field(
        default=2.0,
        description="hardness of every atom in eV/e², unless it is read; EnergyFunctional: before "
        "learning",
    )


class FormalChargeOptions(OptionGroup):
    """Formal charges"""

    decide_weights = False

    atomic_formal_charges: ChargesOfElements = Field(
        default={},
        description="formal charge of each element in e: {H: 1, O: -2}",
        examples=[{"H": 1.0, "O": -2.0}],
    )
    formal_charges_from_data: bool = Field(
        default=False, description="take the formal charge of each atom from the property charges"
    )

    def problems(self) -> list[str]:
        """Return a sentence unless charges come from exactly one place."""
        if bool(self.atomic_formal_charges) != self.formal_charges_from_data:
            return []
        return [
            "give either 'atomic_formal_charges', the charge of each element, or "
            "'formal_charges_from_data: true'"
        ]
