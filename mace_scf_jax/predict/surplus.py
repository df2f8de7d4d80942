"""Words about charge that a model predicts beyond the total charge of a structure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.models import ModelSettings
from mace_scf_jax.models.meaning import undefined

NOTICEABLE = 0.01
"""e of charge beyond the total charge that is warned of."""
LONGEST_LIST = 5
"""Structures that a warning names."""


class SurplusChargeWarning(UserWarning):
    """Predicted charges do not add up to the total charge of a structure."""


class FieldWarning(UserWarning):
    """Energies or forces in an external field depend on how a structure is given."""


def warn_of_surplus(
    predictions: Sequence[Mapping[str, Any]], structures: Sequence[Structure], *, of: str = ""
) -> None:
    """Warn of predicted charges that do not add up to the total charge.

    Args:
        predictions: of each structure.
        structures: with their total charges.
        of: what predicts, for the message; empty where that is clear.
    """
    noticed = []
    for prediction, structure in zip(predictions, structures, strict=True):
        configuration = structure.configuration
        wanted, found = configuration.values["total_charge"], prediction["total_charge"]
        if abs(found - wanted) > NOTICEABLE:
            noticed.append(f"{configuration.location} {_describe(found, wanted)}")
    if len(noticed) > LONGEST_LIST:
        noticed[LONGEST_LIST:] = [f"and {len(noticed) - LONGEST_LIST} further structures"]
    if noticed:
        whose = f" of {of}" if of else ""
        warnings.warn(
            f"charges beyond total_charge{whose}: {'; '.join(noticed)}. LocalCharges keeps it if "
            "trained with conserve_charge",
            SurplusChargeWarning,
            stacklevel=3,
        )


class SurplusWatch:
    """Looks at one geometry after another, and warns once of charges that do not add up.

    Args:
        wanted: whether they are to add up at all.
    """

    def __init__(self, wanted: bool) -> None:
        self._is_silent = not wanted

    def look(self, found: Any, wanted: Any) -> None:
        """Compare the sum of the charges with the total charge, both in e."""
        if self._is_silent or abs(found - wanted) <= NOTICEABLE:
            return
        self._is_silent = True
        warnings.warn(
            f"charges beyond total_charge: the structure {_describe(found, wanted)} (said once)",
            SurplusChargeWarning,
            stacklevel=3,
        )


def _describe(found: Any, wanted: Any) -> str:
    return f"has {float(found):+.3f} e, expected {float(wanted):+.3g} e"


def warn_of_field(settings: ModelSettings, configuration: Configuration) -> None:
    """Warn where energies and forces in a field depend on the origin, or on periodic images.

    Args:
        settings: of the model.
        configuration: the structure with its field.
    """
    field = configuration.values["external_field"]
    if settings.electrostatics is None or not field.any():
        return
    along = undefined(settings, configuration.pbc, configuration.cell).get("dipole")
    if along is not None and (along & (field != 0.0)).any():
        warnings.warn(
            "external field along a periodic direction: energies and forces depend on which image "
            f"of an atom is given, because {settings.family} has no polarization as it was trained",
            FieldWarning,
            stacklevel=3,
        )
    density = settings.density
    if not (settings.own.conserves_charge or density.surplus_at_centre or density.keep_neutral):
        warnings.warn(
            "charges beyond total_charge: in a field, this model refers them to the origin of the "
            "coordinates, on which forces then depend; surplus='centre' or keep_neutral=True ends "
            "that",
            FieldWarning,
            stacklevel=3,
        )
