"""Second derivatives of the energy by the positions of atoms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.data.errors import NO_FILE
from mace_scf_jax.models import ModelSettings, SelfConsistency
from mace_scf_jax.predict.convergence import NotConverged, report_convergence
from mace_scf_jax.predict.model import Model
from mace_scf_jax.simulate.functional import EnergyFunction
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.preparation import Preparation
from mace_scf_jax.simulate.results import Results

ROWS_AT_ONCE = 16
"""Derivatives of force components that are computed together: more need more memory."""
_SKIN = 0.1
"""Å; nothing moves."""


def hessian(
    model: Model, atoms: ase.Atoms, *, not_converged: NotConverged = "raise"
) -> Float[np.ndarray, "components components"]:
    """The matrix of second derivatives of the energy of a structure, by differentiation.

    It costs one derivative of the forces for each of their components. Multipoles that are solved
    for respond.

    Args:
        model: of any family.
        atoms: the structure; the inputs of the model are read from its ``info`` and ``arrays``.
        not_converged: what to do if multipoles are not self-consistent.

    Returns:
        ∂²E/∂r_i∂r_j in eV/Å², symmetric; rows and columns are x, y, z of the first atom, of the
        second, and so on.

    Raises:
        DataError: the structure cannot be used.
        BoundaryError: its periodicity does not fit the model's electrostatics.
        NotConvergedError: multipoles are not self-consistent, and the policy is to raise.
    """
    neighbours = Preparation(model, skin=_SKIN, largest_strain=0.0)(atoms)
    rows, results = _compiled(model.settings, model.scf)(model.parameters, neighbours)
    of_atoms, found = jax.device_get(results.by_name())
    report_convergence([found | of_atoms], [NO_FILE], not_converged=not_converged)
    matrix = np.asarray(rows, dtype=np.float64)
    return 0.5 * (matrix + matrix.T)


@functools.lru_cache(maxsize=16)
def _compiled(
    settings: ModelSettings, scf: SelfConsistency | None
) -> Callable[..., tuple[Array, Results]]:
    """The compiled function of all models with the same settings, whatever their parameters."""
    energy_fn = EnergyFunction(Model(settings, parameters={}, scf=scf))

    @jax.jit
    def rows(parameters: Any, neighbours: Neighbours) -> tuple[Array, Results]:
        def forces(positions: Array) -> tuple[Array, Results]:
            results = energy_fn.results(positions, neighbours, parameters=parameters)
            return results.forces, results

        components, pullback, results = jax.vjp(forces, neighbours.positions, has_aux=True)

        def row(component: Array) -> Array:
            unit = jnp.zeros(components.size, components.dtype).at[component].set(-1.0)
            return pullback(unit.reshape(components.shape))[0].ravel()

        chosen = jnp.arange(components.size)
        return jax.lax.map(row, chosen, batch_size=ROWS_AT_ONCE), results

    return rows
