"""Levenberg–Marquardt steps: Gauss–Newton steps with damping, for models of few parameters.

With y(θ) what the model predicts for the whole training set and L(y) the loss, which is convex,

    g = Jᵀ ∇L,    H = Jᵀ (∇²L) J,    J = ∂y/∂θ,

the step d solves (H + μ h I) d = -g, h the mean of the diagonal of H. Its damping μ is lowered
where the loss falls as this quadratic model says, and raised until the loss falls at all.

Source:
    Marquardt, J. Soc. Ind. Appl. Math. 11, 431 (1963); H of any convex loss: Schraudolph, Neural
    Comput. 14, 1723 (2002); damping: Madsen, Nielsen and Tingleff, Methods for non-linear least
    squares problems (2004), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

MOST_PARAMETERS = 5000
"""Of a model: the matrix of second derivatives has as many rows and columns."""
COLUMNS_AT_ONCE = 64
"""Parameters by which what is predicted is differentiated at once: few enough for the caches."""
MOST_TRIES = 20
"""Steps of growing damping, after which the parameters stay as they are."""


class Damping(NamedTuple):
    """What steps remember of those before."""

    damping: Float[Array, ""]
    """μ, in units of the mean of the diagonal of H."""
    growth: Float[Array, ""]
    """Factor by which μ grows at the next step that does not lower the loss."""

    @classmethod
    def first(cls) -> Damping:
        """Before the first step: strong, for parameters that are far from a minimum."""
        return cls(jnp.asarray(1e-2, jnp.float64), jnp.asarray(2.0, jnp.float64))

    def after_success(self, gain: float) -> Damping:
        """After a step that lowered the loss.

        Args:
            gain: by how much, in units of what the quadratic model told.
        """
        factor = max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
        return Damping(self.damping * factor, jnp.full_like(self.growth, 2.0))

    def after_failure(self) -> Damping:
        """After a step that did not lower the loss."""
        return Damping(self.damping * self.growth, 2.0 * self.growth)


class Curvature(NamedTuple):
    """First and second derivatives of a loss by all parameters, one after the other."""

    gradient: Float[Array, "parameters"]
    matrix: Float[Array, "parameters parameters"]


def curvature(
    predict: Callable[[Any], dict[str, Array]],
    loss: Callable[[dict[str, Array]], Float[Array, ""]],
    parameters: Any,
) -> Curvature:
    """g and H of a loss at some parameters.

    Args:
        predict: of parameters, differentiable in forward mode.
        loss: of what is predicted.
        parameters: tree of arrays.
    """
    flat, tree_of = ravel_pytree(parameters)
    predicted, change = jax.linearize(lambda vector: predict(tree_of(vector)), flat)
    slopes = jax.lax.map(change, jnp.eye(len(flat), dtype=flat.dtype), batch_size=COLUMNS_AT_ONCE)
    gradient_of = jax.grad(loss)
    gradients = gradient_of(predicted)
    bends = jax.vmap(lambda slope: jax.jvp(gradient_of, (predicted,), (slope,))[1])(slopes)

    def rows(tree: dict[str, Array]) -> list[Array]:
        return [leaf.reshape(len(flat), -1).astype(flat.dtype) for leaf in jax.tree.leaves(tree)]

    by_output = [leaf.ravel().astype(flat.dtype) for leaf in jax.tree.leaves(gradients)]
    return Curvature(
        sum(slope @ leaf for slope, leaf in zip(rows(slopes), by_output, strict=True)),
        sum(slope @ bend.T for slope, bend in zip(rows(slopes), rows(bends), strict=True)),
    )


class Trial(NamedTuple):
    """A step that may be taken."""

    step: Float[np.ndarray, "parameters"]
    decrease: float
    """By which it lowers the loss, as far as the quadratic model tells."""
    damping: Damping
    """With which it was found."""


def trials(known: Curvature, damping: Damping) -> Iterator[Trial]:
    """Steps of growing damping, in double precision.

    Args:
        known: derivatives of the loss over the whole set.
        damping: of the first one.
    """
    gradient, matrix = (np.asarray(part, np.float64) for part in known)
    scale = max(np.trace(matrix) / len(matrix), np.finfo(np.float64).tiny)
    for _ in range(MOST_TRIES):
        damped = matrix + float(damping.damping) * scale * np.eye(len(matrix))
        try:
            step = -scipy.linalg.cho_solve(scipy.linalg.cho_factor(damped), gradient)
        except np.linalg.LinAlgError:  # rounding has made it indefinite
            damping = damping.after_failure()
            continue
        decrease = -float(gradient @ step + 0.5 * step @ matrix @ step)
        if decrease > 0.0 and math.isfinite(decrease):
            yield Trial(step, decrease, damping)
        damping = damping.after_failure()
