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
    """Warn of a boundary condition that is wrong for a structure, and of inputs that are not read.

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
    if reason and category not in told:
        told.add(category)
        warnings.warn(f"{configuration.location}: {reason}", category, stacklevel=3)
