"""How the dipole of a model responds to a field and to moving atoms; infrared intensities."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.observables import Parameters
from mace_scf_jax.units import INFRARED_INTENSITY


class NoDipoleError(ValueError):
    """The model predicts no dipole."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DipoleResponse:
    """Dipoles of a batch and their first derivatives. Entries of padding are zero."""

    dipole: Float[Array, "graphs 3"]
    """D in e Å (x, y, z)."""
    polarizability: Float[Array, "graphs 3 3"]
    """-∂D_a/∂E_b in e Å²/V at fixed atoms. The external field E is the gradient of the potential,
    so this is the usual, positive polarizability. It is zero for models whose multipoles do not
    depend on the field."""
    born_charges: Float[Array, "atoms 3 3"]
    """Born effective charges ∂D_a/∂r_b of every atom in e: rows a of the dipole, columns b of the
    displacement."""


def dipole_response(module: nn.Module, params: Parameters, graph: Graph) -> DipoleResponse:
    """Polarizability and Born effective charges of every graph, by differentiation.

    Multipoles that are solved for respond; those of a `FixedPoint` at constant charge.

    All entries cost three reverse passes through the model, whatever the number of atoms. What the
    derivatives mean is what the model's dipole means: along periodic directions only the
    polarization of a `LocalSplitCharges` does not depend on which image of an atom is given.

    Args:
        graph: the batch; derivatives are taken at its positions and external fields.

    Returns:
        Dipoles and derivatives.

    Raises:
        NoDipoleError: the model is of a family without charges.

    Source:
        Gonze and Lee, Phys. Rev. B 55, 10355 (1997), for the definitions.
    """

    def dipole(positions: Array, field: Array) -> Array:
        moved = graph.replace(positions=positions, external_field=field)
        solve = module.settings.of_family.solve
        outputs = solve.outputs(module, params, moved, how=None, start=None)
        if "dipole" not in outputs:
            raise NoDipoleError(
                f"expected a model with charges, found {type(module).__name__}, which has no dipole"
            )
        return outputs["dipole"]

    positions, field = jnp.asarray(graph.positions), jnp.asarray(graph.external_field)
    value, pullback = jax.vjp(dipole, positions, field)
    # graphs do not know each other: the derivative of a sum over graphs holds those of each
    one_component = jnp.broadcast_to(jnp.eye(3, dtype=value.dtype)[:, None, :], (3, *value.shape))
    by_position, by_field = jax.vmap(pullback)(one_component)
    return DipoleResponse(
        dipole=value,
        polarizability=jnp.where(
            graph.graph_mask[:, None, None], -jnp.swapaxes(by_field, 0, 1), 0.0
        ),
        born_charges=jnp.where(
            graph.atom_mask[:, None, None], jnp.swapaxes(by_position, 0, 1), 0.0
        ),
    )


def infrared_intensities(
    born_charges: Float[Array, "atoms 3 3"], modes: Float[Array, "modes atoms 3"]
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
