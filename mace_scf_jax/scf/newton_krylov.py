"""Newton's method on the equations p = F(p, μ), Σ p₀ = Q, and derivatives of their solution.

At constant charge state and level are solved for together. Every linear system is solved by GMRES,
without forming a matrix; an affine F needs a single Newton step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.fixed_point import (
    FixedPointProblem,
    FixedPointSolution,
    FixedPointStatus,
)
from mace_scf_jax.scf.krylov import LinearOperator, Systems, gmres

SHORTEST_STEP = 2.0**-8
"""Fraction of a Newton step below which the residual is not expected to shrink."""


@dataclasses.dataclass(frozen=True)
class NewtonKrylov:
    """Settings of Newton's method with Krylov spaces.

    Raises:
        ValueError: a number is out of range.
    """

    max_steps: int = 20
    """Newton steps after which to give up."""
    tolerance: float = 1e-8
    """Of the mean of |F(p, μ) - p|, and of the error of the charge."""
    krylov_steps: int = 30
    """Largest dimension of a Krylov space."""
    krylov_tolerance: float = 1e-12
    """Residual of a linear system, relative to its right-hand side."""

    def __post_init__(self) -> None:
        for name, smallest in (("max_steps", 0), ("krylov_steps", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"{name}: expected {smallest} or more, found {getattr(self, name)!r}"
                )
        for name in ("tolerance", "krylov_tolerance"):
            if not getattr(self, name) > 0.0:
                raise ValueError(
                    f"{name}: expected a positive number, found {getattr(self, name)!r}"
                )


@dataclasses.dataclass(frozen=True)
class _Unknowns:
    """State, and level at constant charge, of all systems in one vector."""

    problem: FixedPointProblem
    num_components: int

    @property
    def systems(self) -> Systems:
        of_sites = self.problem.system_of_site[:, None]
        owner = jnp.broadcast_to(of_sites, (len(of_sites), self.num_components)).reshape(-1)
        if self.problem.charge is not None:
            owner = jnp.concatenate(
                [owner, jnp.arange(self.problem.num_systems, dtype=owner.dtype)]
            )
        return Systems(owner, self.problem.num_systems)

    def pack(self, state: Array, level: Array) -> Array:
        """One vector."""
        if self.problem.charge is None:
            return state.reshape(-1)
        return jnp.concatenate([state.reshape(-1), level])

    def unpack(self, vector: Array, level: Array) -> tuple[Array, Array]:
        """State and level; the given level unless it is unknown."""
        size = len(self.problem.system_of_site) * self.num_components
        state = vector[:size].reshape(-1, self.num_components)
        return state, (level if self.problem.charge is None else vector[size:])

    def residual(self, vector: Array, level: Array) -> Array:
        """p - F(p, μ) and, at constant charge, Σ p₀ - Q."""
        state, level = self.unpack(vector, level)
        difference = state - self.problem.evaluate(state, level)
        if self.problem.charge is None:
            return difference.reshape(-1)
        return self.pack(difference, self.problem.charges(state) - self.problem.charge)


def newton_krylov(
    problem: FixedPointProblem,
    state: Float[Array, "sites components"],
    level: Float[Array, "systems"],
    *,
    settings: NewtonKrylov,
) -> FixedPointSolution:
    """Find fixed points, each by itself, as differentiable functions of all that F refers to.

    Steps are shortened until the residual shrinks. Derivatives are those of the exact solution, by
    the implicit-function theorem, to any order; they do not depend on how it was found.

    Args:
        problem: the equations.
        state: initial p; zero at masked sites.
        level: initial μ, or the given one.
        settings: tolerances and numbers of steps.

    Returns:
        The solutions, and how well they solve the equations.
    """
    levels = problem.at_sites(level)
    function, references = jax.closure_convert(problem.map, state, levels)
    parameters = (references, problem.charge, level if problem.charge is None else None)

    def with_parameters(parameters) -> tuple[_Unknowns, Array]:
        references, charge, given_level = parameters
        given = dataclasses.replace(
            problem, map=lambda p, m: function(p, m, *references), charge=charge
        )
        unknowns = _Unknowns(given, state.shape[-1])
        return unknowns, (jnp.zeros_like(level) if given_level is None else given_level)

    def equations(vector: Array, parameters) -> Array:
        unknowns, given_level = with_parameters(parameters)
        return unknowns.residual(vector, given_level)

    fixed, initial_state, initial_level = jax.lax.stop_gradient((parameters, state, level))
    unknowns, _ = with_parameters(fixed)
    found = _search(unknowns, initial_state, initial_level, settings)
    vector = _implicit(
        equations,
        unknowns.pack(found.state, found.level),
        parameters,
        unknowns.systems,
        settings,
    )
    state, level = unknowns.unpack(vector, level)
    return dataclasses.replace(
        found, state=state, level=level, argument=state, argument_level=level
    )


def _implicit(
    equations: Callable[[Array, Any], Array],
    found: Float[Array, "size"],
    parameters: Any,
    systems: Systems,
    settings: NewtonKrylov,
) -> Float[Array, "size"]:
    """The root as a differentiable function of the parameters of the equations."""

    def solve(operator: LinearOperator, right: Array) -> Array:
        return gmres(
            operator,
            right,
            systems,
            max_steps=settings.krylov_steps,
            tolerance=settings.krylov_tolerance,
        )[0]

    @jax.custom_jvp
    def root(found: Array, parameters: Any) -> Array:
        return found

    @root.defjvp
    def _of_parameters(primals, tangents):
        found, parameters = primals
        _, changes = tangents
        solution = root(found, parameters)
        _, change = jax.jvp(lambda given: equations(solution, given), (parameters,), (changes,))

        def linear(direction: Array) -> Array:
            at = lambda vector: equations(vector, parameters)  # noqa: E731
            return jax.jvp(at, (solution,), (direction,))[1]

        return solution, jax.lax.custom_linear_solve(
            linear, -change, solve=solve, transpose_solve=solve
        )

    return root(found, parameters)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Iterate:
    """Where Newton's method stands."""

    vector: Float[Array, "size"]
    residual: Float[Array, "size"]
    running: Bool[Array, "systems"]
    status: Int[Array, "systems"]
    steps: Int[Array, "systems"]
    history: Float[Array, "steps systems"]
    step: Int[Array, ""]


def _search(
    unknowns: _Unknowns,
    state: Float[Array, "sites components"],
    level: Float[Array, "systems"],
    settings: NewtonKrylov,
) -> FixedPointSolution:
    """Newton's method for every system, without derivatives."""
    problem, systems = unknowns.problem, unknowns.systems

    def equations(vector: Array) -> Array:
        return unknowns.residual(vector, level)

    def errors(residual: Array) -> tuple[Array, Array]:
        difference, missing = unknowns.unpack(residual, jnp.zeros_like(level))
        return problem.mean_change(difference, jnp.zeros_like(difference)), -missing

    def is_solved(residual: Array) -> Array:
        change, missing = errors(residual)
        return (change < settings.tolerance) & (jnp.abs(missing) < settings.tolerance)

    def advance(iterate: _Iterate) -> _Iterate:
        residual, slope = jax.linearize(equations, iterate.vector)
        direction, _ = gmres(
            slope,
            -residual,
            systems,
            max_steps=settings.krylov_steps,
            tolerance=settings.krylov_tolerance,
        )
        fraction, shrinks = _line_search(equations, systems, iterate, direction)
        vector = iterate.vector + systems.scaled(fraction, direction)
        residual = equations(vector)
        solved = is_solved(residual)
        status = jnp.where(shrinks, FixedPointStatus.MAX_STEPS, FixedPointStatus.SINGULAR)
        status = jnp.where(solved, FixedPointStatus.CONVERGED, status).astype(jnp.int32)
        return _Iterate(
            vector=vector,
            residual=residual,
            running=iterate.running & shrinks & ~solved,
            status=jnp.where(iterate.running, status, iterate.status),
            steps=iterate.steps + (iterate.running & shrinks).astype(jnp.int32),
            history=iterate.history.at[iterate.step].set(errors(residual)[0]),
            step=iterate.step + 1,
        )

    vector = unknowns.pack(state, level)
    residual = equations(vector)
    solved = is_solved(residual)
    count = problem.num_systems
    status = jnp.where(solved, FixedPointStatus.CONVERGED, FixedPointStatus.MAX_STEPS)
    start = _Iterate(
        vector=vector,
        residual=residual,
        running=~solved,
        status=status.astype(jnp.int32),
        steps=jnp.zeros(count, jnp.int32),
        history=jnp.zeros((settings.max_steps + 1, count), vector.dtype),
        step=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(
        lambda iterate: (iterate.step < settings.max_steps) & jnp.any(iterate.running),
        advance,
        start,
    )
    change, missing = errors(end.residual)
    history = end.history[: settings.max_steps]
    after = jnp.arange(settings.max_steps, dtype=jnp.int32)[:, None] >= end.step
    state, level = unknowns.unpack(end.vector, level)
    return FixedPointSolution(
        state=state,
        level=level,
        argument=state,
        argument_level=level,
        status=end.status,
        residual=change,
        charge_error=missing,
        steps=end.steps,
        history=jnp.where(after, change, history),
        states=None,
    )


def _line_search(
    equations: Callable[[Array], Array],
    systems: Systems,
    iterate: _Iterate,
    direction: Float[Array, "size"],
) -> tuple[Float[Array, "systems"], Bool[Array, "systems"]]:
    """Fraction of each system's step that makes its residual smaller, and whether there is one.

    Systems that have ended take no step.
    """
    before = systems.norms(iterate.residual)

    def shrinks(fraction: Array) -> Array:
        after = systems.norms(equations(iterate.vector + systems.scaled(fraction, direction)))
        return ~iterate.running | (after < (1.0 - 1e-4 * fraction) * before)

    def halve(carry):
        fraction, good = carry
        fraction = jnp.where(good, fraction, 0.5 * fraction)
        return fraction, shrinks(fraction)

    def goes_on(carry) -> Array:
        fraction, good = carry
        return jnp.any(~good & (fraction > SHORTEST_STEP))

    full = jnp.where(iterate.running, 1.0, 0.0).astype(direction.dtype)
    fraction, good = jax.lax.while_loop(goes_on, halve, (full, shrinks(full)))
    return jnp.where(good, fraction, 0.0), good
