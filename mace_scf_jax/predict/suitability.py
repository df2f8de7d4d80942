"""Words about structures that a model was not made for, though it gives numbers."""

from __future__ import annotations

import warnings

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.properties import GRAPH_INPUTS, PROPERTIES
from mace_scf_jax.electrostatics import boundary_fault
from mace_scf_jax.models import ModelSettings


class BoundaryWarning(UserWarning):
    """The boundary condition that a model was trained with is wrong for a structure."""


class UnusedInputWarning(UserWarning):
    """A structure has an input that the model does not read."""


class MultiplicityWarning(UserWarning):
    """The electrons of a molecule cannot have its multiplicity."""


def unread_inputs(settings: ModelSettings) -> tuple[str, ...]:
    """Inputs of a structure that have no effect on anything that a model predicts."""
    read = set(settings.graph_inputs)
    if settings.of_family.is_self_consistent:
        read.add("fermi_level")
    if settings.of_family.is_charged:
        read |= {"total_charge", "external_field"}
    return tuple(name for name in GRAPH_INPUTS if name not in read)


def warn_about(
    settings: ModelSettings, configuration: Configuration, told: set[type[Warning]]
) -> None:
    """Warn of a boundary condition that is wrong for a structure, of inputs that are not read,
    and of a multiplicity that cannot be.

    Args:
        settings: of the model.
        configuration: the structure.
        told: kinds of warnings that there were before, which are not repeated; grows.
    """
    electrostatics, values = settings.electrostatics, configuration.values
    if electrostatics is None:
        category: type[Warning] = UnusedInputWarning
        # not the Fermi level, which stands in many files beside other labels
        unread = [name for name in unread_inputs(settings) if name != "fermi_level"]
        found = [name for name in unread if np.any(values[name] != PROPERTIES[name].missing)]
        reason = found and (
            f"found {' and '.join(found)}, which models of the family {settings.family} do not read"
        )
    else:
        category, charge = BoundaryWarning, float(values["total_charge"])
        reason = boundary_fault(electrostatics.boundary, configuration.pbc, charge)
        reason = reason and f"{reason}. pbc_handling='exact' (--pbc_handling exact) does not"
    spin_reason = "total_spin" in settings.graph_inputs and _multiplicity_fault(configuration)
    for kind, why in ((category, reason), (MultiplicityWarning, spin_reason)):
        if why and kind not in told:
            told.add(kind)
            warnings.warn(f"{configuration.location}: {why}", kind, stacklevel=3)


def _multiplicity_fault(configuration: Configuration) -> str | None:
    """Why the electrons of an open structure cannot have its multiplicity; None if they can."""
    charge, multiplicity = (
        float(configuration.values[it]) for it in ("total_charge", "total_spin")
    )
    electrons = float(np.sum(configuration.atomic_numbers)) - charge
    unpaired = multiplicity - 1.0
    whole = charge == round(charge) and unpaired == round(unpaired)
    if np.any(configuration.pbc) or not whole:
        return None
    if 0.0 <= unpaired <= electrons and (electrons - unpaired) % 2.0 == 0.0:
        return None
    return (
        f"{electrons:.0f} electrons (total_charge {charge:+g}) cannot have the multiplicity "
        f"{multiplicity:g}; total_spin is 2S + 1"
    )
