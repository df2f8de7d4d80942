"""What a solved state tells about its map: how strongly it is coupled, how its charge responds."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.scf.equations import Equations
from mace_scf_jax.scf.krylov import arnoldi, identity
from mace_scf_jax.scf.problem import FixedPointProblem, State
from mace_scf_jax.scf.solver import Solver

SQUARINGS = 40
"""Of a matrix, to find its spectral radius from its power 2^40."""


def spectral_radius(
    problem: FixedPointProblem, state: State, level: Float[Array, "systems"], *, steps: int = 20
) -> Float[Array, "systems"]:
    """Estimate of the largest |eigenvalue| of ∂F/∂p at fixed level, for each system.

    Undamped iteration converges near the solution if it is below one. Exact once the Krylov space
    holds all directions that matter, at the latest with as many steps as a system has unknowns; an
    estimate from below otherwise.

    Args:
        state: where the map is linearised, such as a solution.
        level: μ there.
        steps: dimension of the Krylov spaces, and number of evaluations of the linearised map.

    Source:
        Arnoldi's method; the spectral radius of its Hessenberg matrix H by Gelfand's formula,
        lim |Hⁿ|^(1/n), which needs no eigenvalues of non-symmetric matrices.
    """
    equations = Equations(dataclasses.replace(problem, charge=None), level)
    _, slope = jax.linearize(equations.residual, equations.pack(state, level))
    exists = problem.site_mask[:, :, None]
    start = equations.pack(jnp.where(exists, _irregular(state), 0.0), level)
    hessenberg = arnoldi(lambda z: z - slope(z), start, max_steps=steps)
    return _radius(hessenberg)


def charge_response(
    problem: FixedPointProblem, state: State, level: Float[Array, "systems"], *, solver: Solver
) -> Float[Array, "systems"]:
    """dQ/dμ of the solved state, for each system: its charge follows its level by this much.

    With p(μ) the solution at given level, dp/dμ = (1 - ∂F/∂p)⁻¹ ∂F/∂μ. Where it is near zero the
    charge does not determine the level; where it changes sign between solutions there are several.

    Args:
        state: the solution.
        level: μ there.
    """
    at_level = dataclasses.replace(problem, charge=None)
    equations = Equations(at_level, level)
    vectors = equations.pack(state, level)
    _, slope = jax.linearize(equations.residual, vectors)
    _, change = jax.jvp(
        lambda values: Equations(at_level, values).residual(vectors),
        (level,),
        (jnp.ones_like(level),),
    )
    response, _ = equations.unpack(solver.solve_linear(slope, -change, identity))
    return at_level.charges(response)


def _irregular(state: State) -> State:
    """Numbers without symmetry, which have a part along every eigenvector."""
    index = jnp.arange(state.size, dtype=state.dtype)
    return jnp.cos(2.39996 * index**1.5).reshape(state.shape)


def _radius(matrices: Float[Array, "systems n n"]) -> Float[Array, "systems"]:
    """Largest |eigenvalue| of each matrix: |M^(2^k)|^(1/2^k) for a large k."""

    def normalised(matrices: Array, logarithm: Array) -> tuple[Array, Array]:
        size = jnp.linalg.norm(matrices, axis=(-2, -1))
        safe = jnp.where(size > 0.0, size, 1.0)
        logarithm = jnp.where(size > 0.0, logarithm + jnp.log(safe), -jnp.inf)
        return matrices / safe[:, None, None], logarithm

    def square(_, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        matrices, logarithm = carry
        return normalised(matrices @ matrices, 2.0 * logarithm)

    start = normalised(matrices, jnp.zeros(len(matrices), matrices.dtype))
    _, logarithm = jax.lax.fori_loop(0, SQUARINGS, square, start)
    return jnp.exp(logarithm / 2.0**SQUARINGS)
