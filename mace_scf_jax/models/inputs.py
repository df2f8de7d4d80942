"""Per-atom inputs that a structure has to come with, checked on the host."""

from __future__ import annotations

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models.families.qeq.model import ENEGS_INPUT, HARDNESS_INPUT
from mace_scf_jax.models.formal_charges import FORMAL_CHARGES_INPUT
from mace_scf_jax.models.registry import FORMAL_CHARGE_FAMILIES
from mace_scf_jax.models.settings import ModelSettings


def required_inputs(settings: ModelSettings) -> tuple[str, ...]:
    """Names of the per-atom inputs that every structure has to come with.

    Args:
        settings: of the model.
    """
    from_data = settings.family in FORMAL_CHARGE_FAMILIES and settings.formal_charges is None
    equilibration = settings.charge_equilibration
    wanted = {
        FORMAL_CHARGES_INPUT: from_data,
        ENEGS_INPUT: equilibration is not None and equilibration.read_enegs,
        HARDNESS_INPUT: equilibration is not None and equilibration.read_hardness,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def check_inputs(settings: ModelSettings, configuration: Configuration) -> None:
    """Refuse a structure without the per-atom inputs of a model.

    Args:
        settings: of the model.
        configuration: the structure.

    Raises:
        DataError: an input is missing, a formal charge is outside the range in which it is
            expanded, or a hardness is not positive.
    """
    for name in required_inputs(settings):
        if name not in configuration.present:
            raise DataError(
                f"{configuration.location}: the model {settings.family} reads {name!r} of every "
                "atom from the data, found none (which array holds it: arrays_keys)"
            )
    if FORMAL_CHARGES_INPUT in required_inputs(settings) and settings.split_charges is not None:
        low, high = settings.split_charges.charge_range
        charges = configuration.values[FORMAL_CHARGES_INPUT]
        if np.any((charges < low) | (charges > high)):
            raise DataError(
                f"{configuration.location}: found formal charges from {charges.min():g} to "
                f"{charges.max():g} e, expected charges in the range of oxidation states, "
                f"{low:g} to {high:g} e"
            )
    if HARDNESS_INPUT in required_inputs(settings):
        hardness = configuration.values[HARDNESS_INPUT]
        if np.any(hardness <= 0.0):
            atom = int(np.argmax(hardness <= 0.0))
            raise DataError(
                f"{configuration.location}: found hardness {hardness[atom]:g} eV/e² of atom "
                f"{atom}, expected positive numbers, because charges would grow without limit"
            )
