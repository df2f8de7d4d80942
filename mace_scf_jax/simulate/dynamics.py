"""Molecular dynamics as a pure step from one state to the next.

One scheme serves all ensembles: half a kick, half a drift, the thermostat, half a drift, the
barostat, new forces, half a kick. Without thermostat and barostat that is velocity Verlet, with
the thermostat BAOAB. Units: Å, eV, u; the unit of time is Å √(u/eV) = 10.18 fs.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from jaxtyping import Array, Float, Int, Key

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


class EvaluationStatus(enum.IntEnum):
    """What an evaluation came to."""

    USABLE = 0
    """The numbers are right."""
    OUTGROWN = 1
    """What the host prepared does not serve: it has to prepare again."""
    NOT_CONVERGED = 2
    """Multipoles that are solved for did not converge."""
    NOT_FINITE = 3
    """Positions or energies are infinite or not a number."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Energy and its derivatives at one geometry."""

    energy: Float[Array, ""]
    """eV."""
    forces: Float[Array, "atoms 3"]
    """eV/Å."""
    stress: Float[Array, "3 3"] | None
    """eV/Å³, positive under tension; needed by the barostat only."""
    status: Int[Array, ""]
    """An `EvaluationStatus`: whether these numbers can be used. Where not, no step is made."""
    context: Any
    """What the next evaluation goes on from: neighbours, a solved density."""


Evaluate = Callable[[Array, Array, Any], Evaluation]
"""From positions [atoms, 3], cell [3, 3] and the context before to an evaluation."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MotionState:
    """Atoms in motion."""

    positions: Float[Array, "atoms 3"]
    """Å, not wrapped into the cell."""
    momenta: Float[Array, "atoms 3"]
    """√(u eV)."""
    cell: Float[Array, "3 3"]
    """Å (rows)."""
    key: Key[Array, ""]
    """Of the random numbers to come."""
    heat: Float[Array, ""]
    """Energy that the thermostat has given to the atoms so far, eV."""
    evaluation: Evaluation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Thermostat:
    """Langevin friction and noise."""

    thermal_energy: Float[Array, ""]
    """k_B T in eV."""
    friction: Float[Array, ""]
    """Rate at which momenta decay, inverse units of time."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Barostat:
    """Isotropic stochastic cell rescaling."""

    thermal_energy: Float[Array, ""]
    """k_B T in eV, that of the thermostat."""
    pressure: Float[Array, ""]
    """eV/Å³."""
    rate: Float[Array, ""]
    """Compressibility over relaxation time, Å³/eV per unit of time."""


def step(
    state: MotionState,
    evaluate: Evaluate,
    *,
    masses: Float[Array, "atoms"],
    timestep: Float[Array, ""],
    thermostat: Thermostat | None = None,
    barostat: Barostat | None = None,
) -> MotionState:
    """The state one time step later.

    Args:
        state: where the atoms are and go.
        evaluate: energies and forces; with a barostat also stress.
        masses: u.
        timestep: in units of time.
        thermostat: keeps the temperature.
        barostat: keeps the pressure, along with a thermostat.

    Source:
        Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (BAOAB);
        Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), eq. 8.
    """
    half = 0.5 * timestep
    inverse_masses = 1.0 / masses[:, None]
    key, for_thermostat, for_barostat = jax.random.split(state.key, 3)
    cell, heat = state.cell, state.heat

    momenta = state.momenta + half * state.evaluation.forces
    positions = state.positions + half * inverse_masses * momenta
    if thermostat is not None:
        before = kinetic_energy(momenta, masses)
        momenta = _thermalised(momenta, masses, timestep, thermostat, for_thermostat)
        heat = heat + kinetic_energy(momenta, masses) - before
    positions = positions + half * inverse_masses * momenta
    if barostat is not None:
        factor = _rescaling(
            pressure(state.evaluation.stress, momenta, masses, cell),
            volume(cell),
            timestep,
            barostat,
            for_barostat,
        )
        positions, cell, momenta = factor * positions, factor * cell, momenta / factor

    evaluation = evaluate(positions, cell, state.evaluation.context)
    momenta = momenta + half * evaluation.forces
    return MotionState(positions, momenta, cell, key, heat, evaluation)


def advance(
    state: MotionState, num_steps: Int[Array, ""], make_step: Callable[[MotionState], MotionState]
) -> tuple[MotionState, Int[Array, ""], Int[Array, ""]]:
    """Many steps on the device, up to the first whose evaluation cannot be used.

    Args:
        state: the initial state.
        num_steps: how many steps; a traced number, so that one compiled loop does for all.
        make_step: one step.

    Returns:
        The last usable state, the number of steps made, and the `EvaluationStatus` of the last
        step tried.
    """

    def proceeds(carry):
        _, done, status = carry
        return (status == EvaluationStatus.USABLE) & (done < num_steps)

    def body(carry):
        before, done, _ = carry
        after = make_step(before)
        status = after.evaluation.status
        usable = status == EvaluationStatus.USABLE
        kept = jax.tree.map(lambda new, old: jnp.where(usable, new, old), after, before)
        return kept, done + usable.astype(done.dtype), status

    usable = jnp.full_like(state.evaluation.status, EvaluationStatus.USABLE)
    return jax.lax.while_loop(proceeds, body, (state, jnp.zeros_like(num_steps), usable))


def random_momenta(
    key: Key[Array, ""], masses: Float[Array, "atoms"], thermal_energy: Float[Array, ""]
) -> Float[Array, "atoms 3"]:
    """Momenta (√(u eV)) of the Maxwell–Boltzmann distribution, without motion of the whole."""
    normal = jax.random.normal(key, (masses.shape[0], 3), masses.dtype)
    momenta = jnp.sqrt(thermal_energy * masses)[:, None] * normal
    drift = jnp.sum(momenta, axis=0) / jnp.sum(masses)
    return momenta - masses[:, None] * drift if masses.shape[0] > 1 else momenta


def kinetic_energy(
    momenta: Float[Array, "atoms 3"], masses: Float[Array, "atoms"]
) -> Float[Array, ""]:
    """½ Σ p²/m in eV."""
    return 0.5 * jnp.sum(momenta**2 / masses[:, None])


def pressure(
    stress: Float[Array, "3 3"],
    momenta: Float[Array, "atoms 3"],
    masses: Float[Array, "atoms"],
    cell: Float[Array, "3 3"],
) -> Float[Array, ""]:
    """Pressure of moving atoms in eV/Å³; the stress is positive under tension."""
    return 2.0 / 3.0 * kinetic_energy(momenta, masses) / volume(cell) - jnp.trace(stress) / 3.0


def volume(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume of a cell in Å³."""
    return jnp.abs(jnp.linalg.det(cell))


def _thermalised(
    momenta: Array, masses: Array, timestep: Array, thermostat: Thermostat, key: Array
) -> Array:
    """Momenta after friction and noise, exactly for any time step."""
    decay = jnp.exp(-thermostat.friction * timestep)
    spread = jnp.sqrt((1.0 - decay**2) * thermostat.thermal_energy * masses)[:, None]
    return decay * momenta + spread * jax.random.normal(key, momenta.shape, momenta.dtype)


def _rescaling(
    current: Array, volume: Array, timestep: Array, barostat: Barostat, key: Array
) -> Array:
    """Factor on lengths in one time step: d ln V = β/τ (P − P₀) dt + √(2 k_B T β/(τ V)) dW."""
    noise = jax.random.normal(key, (), current.dtype)
    spread = jnp.sqrt(2.0 * barostat.thermal_energy * barostat.rate * timestep / volume)
    change = barostat.rate * (current - barostat.pressure) * timestep + spread * noise
    return jnp.exp(change / 3.0)
