"""Molecular dynamics as a pure step from one state to the next.

One scheme serves all ensembles: half a kick, half a drift, the thermostat, half a drift, the
barostat, new forces, half a kick. Without thermostat and barostat that is velocity Verlet, with
the thermostat BAOAB. Units: Å, eV, u; the unit of time is Å √(u/eV) = 10.18 fs.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


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
    TOO_FAST = 4
    """An atom would move by more than any does in a step."""
    UNCERTAIN = 5
    """The members of a committee disagree by more than is accepted."""


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


LARGEST_MOVE = 1.0
"""Å in one step. Hydrogen at 300 K moves by 0.01 Å in 0.5 fs: what moves this fast has been shot
away by forces that no atom exerts."""


def step(
    state: MotionState,
    evaluate: Evaluate,
    *,
    masses: Float[Array, "atoms"],
    timestep: Float[Array, ""],
    thermostat: Thermostat | None = None,
    barostat: Barostat | None = None,
    mobile: Float[Array, "atoms 3"] | None = None,
) -> MotionState:
    """The state one time step later.

    Args:
        state: where the atoms are and go.
        evaluate: energies and forces; with a barostat also stress.
        masses: u.
        timestep: in units of time.
        thermostat: keeps the temperature.
        barostat: keeps the pressure, along with a thermostat.
        mobile: 1 for coordinates that move, 0 for those that are fixed; None if all move. Not with
            a barostat, which moves all of them.

    Source:
        Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (BAOAB);
        Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), eq. 8.
    """
    half = 0.5 * timestep
    inverse_masses = 1.0 / masses[:, None]
    key, for_thermostat, for_barostat = jax.random.split(state.key, 3)
    cell, heat = state.cell, state.heat

    def of_mobile(momenta: Array) -> Array:
        return momenta if mobile is None else mobile * momenta

    momenta = of_mobile(state.momenta + half * state.evaluation.forces)
    positions = state.positions + half * inverse_masses * momenta
    if thermostat is not None:
        before = kinetic_energy(momenta, masses)
        momenta = of_mobile(_thermalised(momenta, masses, timestep, thermostat, for_thermostat))
        heat = heat + kinetic_energy(momenta, masses) - before
    positions = positions + half * inverse_masses * momenta
    largest_move = jnp.max(jnp.linalg.norm(positions - state.positions, axis=1))
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
    momenta = of_mobile(momenta + half * evaluation.forces)
    too_fast = (largest_move > LARGEST_MOVE) & (evaluation.status != EvaluationStatus.NOT_FINITE)
    status = jnp.where(too_fast, EvaluationStatus.TOO_FAST, evaluation.status)
    evaluation = dataclasses.replace(evaluation, status=status)
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
    key: Key[Array, ""],
    masses: Float[Array, "atoms"],
    thermal_energy: Float[Array, ""],
    mobile: Float[Array, "atoms 3"] | None = None,
) -> Float[Array, "atoms 3"]:
    """Momenta (√(u eV)) of the Maxwell–Boltzmann distribution.

    Without motion of the whole, unless some coordinates are fixed (0 in ``mobile``).
    """
    normal = jax.random.normal(key, (masses.shape[0], 3), masses.dtype)
    momenta = jnp.sqrt(thermal_energy * masses)[:, None] * normal
    if mobile is not None:
        return mobile * momenta
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
