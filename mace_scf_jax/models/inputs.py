"""Per-atom inputs that a structure has to come with, checked on the host."""

from __future__ import annotations

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models.settings import ModelSettings


def required_inputs(settings: ModelSettings) -> tuple[str, ...]:
    """Return the names of the per-atom inputs that every structure has to come with."""
    return settings.own.inputs


def check_inputs(settings: ModelSettings, configuration: Configuration) -> None:
    """Refuse a structure without the per-atom inputs of a model.

    Raises:
        DataError: an input is missing or makes no sense, such as a formal charge outside the range
            in which it is expanded.
    """
    for name in settings.own.inputs:
        if name not in configuration.present:
            raise DataError(
                f"{configuration.location}: the model {settings.family} reads {name!r} of every "
                "atom from the data, found none (which array holds it: arrays_keys)"
            )
    settings.own.check_structure(configuration)
