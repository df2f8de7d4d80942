"""How atoms move: ensemble, time step and baths of a simulation, in everyday units."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from ase import units

from mace_scf_jax.simulate.dynamics import Barostat, Thermostat

_PICOSECOND = 1000.0 * units.fs

Ensemble = Literal["nve", "nvt", "npt"]
"""Constant energy, temperature, or temperature and pressure."""


class SimulationError(ValueError):
    """A simulation cannot start or go on."""


@dataclasses.dataclass(frozen=True)
class SimulationSettings:
    """How atoms move.

    Raises:
        SimulationError: a value makes no sense, or is missing.
    """

    ensemble: Ensemble
    timestep: float = 0.5
    """fs."""
    temperature: float | None = None
    """K; of initial momenta and, but for "nve", of the thermostat."""
    friction: float = 1.0
    """Of the Langevin thermostat, 1/ps."""
    pressure: float = 1.0
    """bar, for "npt"."""
    relaxation_time: float = 1.0
    """In which the volume follows the pressure, ps, for "npt"."""
    compressibility: float = 4.5e-5
    """Rough isothermal compressibility, 1/bar, for "npt"; it only scales the relaxation time."""

    def __post_init__(self) -> None:
        if self.ensemble not in get_args(Ensemble):
            raise SimulationError(
                f"ensemble: found {self.ensemble!r}, expected {', '.join(get_args(Ensemble))}"
            )
        positive = ["timestep"]
        if self.ensemble != "nve":
            if self.temperature is None:
                raise SimulationError(f"ensemble {self.ensemble} needs a temperature (K)")
            positive += ["temperature", "friction"]
        if self.ensemble == "npt":
            positive += ["relaxation_time", "compressibility"]
        for name in positive:
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise SimulationError(f"{name}: found {value}, expected a positive number")
        if self.temperature is not None and not self.temperature >= 0.0:
            raise SimulationError(f"temperature: found {self.temperature}, expected at least 0 K")
        if not np.isfinite(self.pressure):
            raise SimulationError(f"pressure: found {self.pressure}, expected a number (bar)")

    @property
    def thermostat(self) -> Thermostat | None:
        """In units of dynamics."""
        if self.ensemble == "nve":
            return None
        return Thermostat(
            jnp.asarray(units.kB * self.temperature), jnp.asarray(self.friction / _PICOSECOND)
        )

    @property
    def barostat(self) -> Barostat | None:
        """In units of dynamics."""
        if self.ensemble != "npt":
            return None
        rate = self.compressibility / units.bar / (self.relaxation_time * _PICOSECOND)
        return Barostat(
            jnp.asarray(units.kB * self.temperature),
            jnp.asarray(self.pressure * units.bar),
            jnp.asarray(rate),
        )
