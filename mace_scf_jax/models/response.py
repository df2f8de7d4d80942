"""How the dipole of a model responds to a field and to moving atoms; infrared intensities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import dipole_cartesian
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.forces_and_stress import Parameters
from mace_scf_jax.models.meaning import as_nan
from mace_scf_jax.models.screening import dipole_scale, model_outputs
from mace_scf_jax.units import INFRARED_INTENSITY

SINE_SERIES = (4.0 / 3.0, -1.0 / 6.0)
"""c of x ≈ Σ_n c_n sin(n k x)/k, which is exact up to the fourth power of k x."""


class NoDipoleError(ValueError):
    """The model predicts no dipole."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DipoleResponse:
    """Dipoles of a batch and their first derivatives. Entries of padding are zero."""

    dipole: Float[Array, "graphs 3"]
    """D in e Å (x, y, z); NaN along periodic directions where it means nothing."""
    polarizability: Float[Array, "graphs 3 3"] | None
    """-∂D_a/∂E_b in e Å²/V at fixed atoms. The external field E is the gradient of the potential,
    so this is the usual, positive polarizability. Of models whose multipoles do not depend on the
    field: what they read out, or None. NaN where it means nothing, as for the dipole."""
    born_charges: Float[Array, "atoms 3 3"]
    """Born effective charges ∂D_a/∂r_b of every atom in e: rows a of the dipole, columns b of the
    displacement; along periodic directions those of the polarization."""


def dipole_response(
    module: nn.Module, params: Parameters, graph: Graph, *, how: Any = None, periodic: bool = True
) -> DipoleResponse:
    """Polarizability and Born effective charges of every graph, by differentiation.

    Multipoles that are solved for respond; those of a `FixedPoint` at constant charge.

    All entries cost three reverse passes through the model, whatever the number of atoms; where a
    structure may be periodic and the model has no polarization, fifteen more (`_born_charges`).

    Args:
        graph: the batch; derivatives are taken at its positions and external fields.
        how: how the state of the model is solved for; None for the default of the family.
        periodic: whether a graph may be periodic.

    Returns:
        Dipoles and derivatives.

    Raises:
        NoDipoleError: the model is of a family without charges.

    Source:
        Gonze and Lee, Phys. Rev. B 55, 10355 (1997), for the definitions.
    """
    settings = module.settings
    if not settings.of_family.is_charged:
        raise NoDipoleError(
            f"expected a model with charges, found {type(module).__name__}, which has no dipole"
        )

    def density(positions: Array, field: Array) -> tuple[tuple[Array, Array], Array | None]:
        moved = graph.replace(positions=positions, external_field=field)
        outputs = model_outputs(module, params, moved, how=how)
        real = dipole_scale(settings) * outputs["multipoles"]
        return (outputs["dipole"], real), outputs.get("polarizability")

    positions, field = jnp.asarray(graph.positions), jnp.asarray(graph.external_field)
    (dipole, multipoles), pullback, polarizability = jax.vjp(
        density, positions, field, has_aux=True
    )
    # graphs do not know each other: the derivative of a sum over graphs holds those of each
    one_component = jnp.broadcast_to(jnp.eye(3, dtype=dipole.dtype)[:, None, :], (3, *dipole.shape))
    by_position, by_field = jax.vmap(lambda row: pullback((row, jnp.zeros_like(multipoles))))(
        one_component
    )
    born_charges = jnp.swapaxes(by_position, 0, 1)
    if periodic and not settings.own.has_polarization:

        def by_positions(weights: Float[Array, "atoms components"]) -> Float[Array, "atoms 3"]:
            return pullback((jnp.zeros_like(dipole), weights))[0]

        born_charges = _born_charges(graph, multipoles, born_charges, by_positions)
    response = {"dipole": dipole}
    if settings.of_family.responds_to_field:
        response["polarizability"] = -jnp.swapaxes(by_field, 0, 1)
    elif polarizability is not None:
        response["polarizability"] = polarizability
    response = as_nan(settings, response, graph)
    if "polarizability" in response:
        response["polarizability"] = jnp.where(
            graph.graph_mask[:, None, None], response["polarizability"], 0.0
        )
    return DipoleResponse(
        dipole=response["dipole"],
        polarizability=response.get("polarizability"),
        born_charges=jnp.where(graph.atom_mask[:, None, None], born_charges, 0.0),
    )


def _born_charges(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    of_dipole: Float[Array, "atoms 3 3"],
    by_positions: Callable[[Array], Array],
) -> Float[Array, "atoms 3 3"]:
    """Born effective charges that do not depend on which image of an atom is given.

    Charge that atom i gains while atom j moves has come from where j is. Along open directions that
    is the derivative of the dipole. Along a lattice vector a, with fractional coordinates s,

        Z_j = Q_j + Σ_i ∂d_i/∂r_j + a Σ_i f(s_i - s_j) ∂Q_i/∂r_j,    f(s) = Σ_n c_n sin(2πns)/2π,

    where f is s for charges that change near j, and does not see the images.

    Args:
        multipoles: in e Å^l.
        of_dipole: derivatives of the dipole, which hold along open directions.
        by_positions: Σ w ∂p/∂r_j from weights w of the multipoles.

    Source:
        Zhong, Kim, King and Cheng, arXiv:2504.05169 (2025), with one sine.
    """
    owner, dtype = graph.atom_graph, multipoles.dtype
    pbc = jnp.asarray(graph.pbc)
    lattice = jnp.where(pbc[:, :, None], graph.cell, 0.0)
    gram = jnp.einsum("gai,gbi->gab", lattice, lattice)
    gram += jax.vmap(jnp.diag)(jnp.where(pbc, 0.0, 1.0).astype(dtype))
    dual = jnp.linalg.solve(gram, lattice)  # zero along open directions
    projector = jnp.einsum("gai,gaj->gij", lattice, dual)
    turns = jnp.einsum("ai,abi->ba", jnp.asarray(graph.positions), dual[owner])
    orders = jnp.arange(1, len(SINE_SERIES) + 1, dtype=dtype)
    phases = 2.0 * math.pi * orders[:, None, None] * turns  # [orders, vectors, atoms]

    def of_charges(weights: Array) -> Array:
        return by_positions(jnp.zeros_like(multipoles).at[:, 0].set(weights))

    def of_dipoles(direction: Array) -> Array:
        _, back = jax.vjp(dipole_cartesian, multipoles)
        return by_positions(back(jnp.broadcast_to(direction, (graph.num_atoms, 3)))[0])

    sines, cosines = jnp.sin(phases), jnp.cos(phases)
    by_sines, by_cosines = (
        jax.vmap(jax.vmap(of_charges))(jnp.where(graph.atom_mask, wave, 0.0))
        for wave in (sines, cosines)
    )
    series = jnp.asarray(SINE_SERIES, dtype) / (2.0 * math.pi)
    flow = cosines[..., None] * by_sines - sines[..., None] * by_cosines
    flow = jnp.einsum("n,nvab->vab", series, flow)
    carried = jnp.einsum("avi,vab->aib", lattice[owner], flow)
    local = multipoles[:, 0, None, None] * jnp.eye(3, dtype=dtype)
    local += jnp.swapaxes(jax.vmap(of_dipoles)(jnp.eye(3, dtype=dtype)), 0, 1)
    along = projector[owner]
    return of_dipole + carried + along @ (local - of_dipole)


def infrared_intensities(
    born_charges: Float[Array | np.ndarray, "atoms 3 3"],
    modes: Float[Array | np.ndarray, "modes atoms 3"],
) -> Float[Array, "modes"]:
    """Infrared intensities of normal modes in the double-harmonic approximation.

    Args:
        born_charges: Born effective charges in e, as of `dipole_response`.
        modes: displacements of the atoms along each mode in u^-½: eigenvectors of the mass-weighted
            Hessian, of norm 1, divided by √mass of each atom (``VibrationsData.get_modes`` of ASE
            with all atoms).

    Returns:
        Integrated absorption coefficients in km/mol.

    Source:
        Porezag and Pederson, Phys. Rev. B 54, 7830 (1996), eq. 6.
    """
    by_mode = jnp.einsum("iab,mib->ma", born_charges, modes)
    return INFRARED_INTENSITY * jnp.sum(by_mode**2, axis=-1)
