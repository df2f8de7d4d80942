"""Fixed points p = F(p, μ) of many systems at once, with the total charge of each under control.

A state p has components at the sites of every system; the sum of the first component over the sites
is the charge of the system. The map F also depends on one level μ for each system. In the mode of
constant level μ is given; in the mode of constant charge μ is an unknown of its own, determined by
the charge,

    p = F(p, μ),    Σ p₀ = Q    (for every system).

F never couples systems to each other, which is why each of them converges by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.scf.jacobian_memory import JacobianMemory
from mace_scf_jax.scf.krylov import Vectors

SMALLEST_PIVOT = 100.0
"""Relative to the largest, times the precision of numbers; below it a matrix is singular."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlopePreconditioner:
    """1 - ∂F/∂p of every system, factorised. It has no derivative."""

    factors: Float[Array, "systems unknowns unknowns"]
    """L and U."""
    pivots: Int[Array, "systems unknowns"]
    """Rows that were exchanged."""

    @classmethod
    def of_slopes(cls, slopes: Float[Array, "systems unknowns unknowns"]) -> SlopePreconditioner:
        """The preconditioner of ∂F/∂p; that of no slope where 1 - ∂F/∂p is singular.

        Args:
            slopes: ∂F/∂p, with rows and columns (site of the system, component); zero for unknowns
                that do not exist.
        """
        slopes = jax.lax.stop_gradient(slopes)
        unit = jnp.eye(slopes.shape[-1], dtype=slopes.dtype)
        finite = jnp.all(jnp.isfinite(slopes), axis=(-2, -1), keepdims=True)
        factors, pivots = jax.scipy.linalg.lu_factor(jnp.where(finite, unit - slopes, unit))
        sizes = jnp.abs(jnp.diagonal(factors, axis1=-2, axis2=-1))
        smallest = SMALLEST_PIVOT * float(jnp.finfo(slopes.dtype).eps) * jnp.max(sizes, axis=-1)
        usable = jnp.min(sizes, axis=-1) > smallest
        none = jnp.arange(slopes.shape[-1], dtype=pivots.dtype)
        return cls(
            factors=jnp.where(usable[:, None, None], factors, unit),
            pivots=jnp.where(usable[:, None], pivots, none),
        )

    def solve(self, states: Vectors, *, transposed: bool = False) -> Vectors:
        """(1 - ∂F/∂p)⁻¹ p of every system.

        Args:
            states: p; a single right side each, as many would wake the threads of LAPACK, which
                keep the cores from those of XLA for a while.
            transposed: solve with the transposed matrix.

        Raises:
            ValueError: the matrices are not those of such states.
        """
        if self.pivots.shape != states.shape:
            raise ValueError(
                f"preconditioner: expected matrices for states of shape {states.shape} (systems, "
                f"unknowns), found {self.factors.shape}"
            )

        def of_system(factors: Array, pivots: Array, state: Array) -> Array:
            return jax.scipy.linalg.lu_solve((factors, pivots), state, trans=int(transposed))

        return jax.vmap(of_system)(self.factors, self.pivots, states)


State = Float[Array, "systems sites components"]
Map = Callable[[Array, Array], Array]
"""F: a state [systems, sites, components] and the level at every site [systems, sites] -> a state.
"""


@dataclasses.dataclass(frozen=True)
class FixedPointProblem:
    """The equations p = F(p, μ), with or without given charges."""

    map: Map
    """F. Results of masked sites are zero."""
    site_mask: Bool[Array, "systems sites"]
    """False for sites that do not exist: every system has room for those of the largest."""
    charge: Float[Array, "systems"] | None
    """The charge Q of every system; None if the level is given."""
    preconditioner: SlopePreconditioner | None = None
    """∂F/∂p of every system where that is at hand. A solution that is unique does not depend on it,
    only how soon it is found."""

    def charges(self, state: State) -> Float[Array, "systems"]:
        """Charge of each system in a state."""
        return jnp.sum(jnp.where(self.site_mask, state[:, :, 0], 0.0), axis=-1)

    def at_sites(self, values: Float[Array, "systems"]) -> Float[Array, "systems sites"]:
        """The value of its system at every site."""
        return jnp.broadcast_to(values[:, None], self.site_mask.shape)

    def num_sites(self) -> Int[Array, "systems"]:
        """Number of sites of each system."""
        return jnp.sum(self.site_mask, axis=-1, dtype=jnp.int32)

    def mean_size(self, change: State) -> Float[Array, "systems"]:
        """Mean of the absolute values of all components of each system; 0 without sites."""
        size = jnp.sum(jnp.abs(change), axis=(1, 2))
        count = jnp.maximum(self.num_sites(), 1) * change.shape[-1]
        return size / count.astype(change.dtype)

    def evaluate(self, state: State, level: Float[Array, "systems"]) -> State:
        """F(p, μ)."""
        return self.map(state, self.at_sites(level))

    def evaluate_with_response(
        self, state: State, level: Float[Array, "systems"]
    ) -> tuple[State, Float[Array, "systems sites"]]:
        """F(p, μ), and how much the charge changes with the level at each site.

        The response at site i is the derivative of the total charge by the level at i, at fixed
        state; its sum over a system is dQ/dμ of one step.
        """
        result, pullback = jax.vjp(lambda levels: self.map(state, levels), self.at_sites(level))
        unit_charge = jnp.zeros_like(result).at[:, :, 0].set(1.0)
        (response,) = pullback(unit_charge)
        return result, jnp.where(self.site_mask, response, 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FixedPointSolution:
    """What a solver found, and how well it solves the equations."""

    state: State
    """p."""
    level: Float[Array, "systems"]
    """μ; the given one in the mode of constant level."""
    argument: State
    """State at which F was evaluated last; the solution itself up to convergence."""
    argument_level: Float[Array, "systems"]
    """Level at which F was evaluated last."""
    status: Int[Array, "systems"]
    """A `SolverStatus` for every system."""
    residual: Float[Array, "systems"]
    """Mean change of the state in the last step (infinite if there was none), or mean of
    |F(p, μ) - p|, whichever the solver judges by."""
    charge_error: Float[Array, "systems"]
    """Wanted charge minus charge of the state; 0 in the mode of constant level."""
    steps: Int[Array, "systems"]
    """Number of steps that changed the state of the system."""
    evaluations: Int[Array, "systems"]
    """Number of evaluations of F and of its linearisation until the system ended. An evaluation
    that also gives ∂F/∂μ at fixed p counts once."""
    history: Float[Array, "steps systems"]
    """Residual of every step; that of the last one for systems that had ended."""
    states: Float[Array, "steps+1 systems sites components"] | None = None
    """The initial state and the state of every step, if asked for."""
    memory: JacobianMemory | None = None
    """What the next search nearby may go on from, if this one was given such a memory."""
