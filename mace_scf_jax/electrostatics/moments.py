"""Charge, dipole and second moment of a density of atomic multipoles, and its energy in a field."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Lowest moments of a density about the origin."""

    charge: Float[Array, ""]
    """q = Σ Q_i in e."""
    dipole: Float[Array, "3"]
    """D = Σ Q_i r_i + d_i in e Å, Cartesian x, y, z."""
    second_moment: Float[Array, ""]
    """M = Σ Q_i r_i² + 2 d_i·r_i in e Å²."""


def dipole_cartesian(multipoles: Float[Array, "*shape components"]) -> Float[Array, "*shape 3"]:
    """Atomic dipoles in Cartesian order; the only place where (y, z, x) becomes (x, y, z).

    Args:
        multipoles: multipoles in storage order [Q, d_y, d_z, d_x, …], in e Å^l.

    Returns:
        Dipoles (x, y, z) in e Å; zero if the multipoles are charges only.
    """
    if multipoles.shape[-1] == 1:
        return jnp.zeros((*multipoles.shape[:-1], 3), dtype=multipoles.dtype)
    return multipoles[..., jnp.array([3, 1, 2])]


def atomic_dipole_contributions(
    positions: Float[Array, "atoms 3"], multipoles: Float[Array, "atoms components"]
) -> Float[Array, "atoms 3"]:
    """Contribution Q_i r_i + d_i of each atom to the total dipole, in e Å (x, y, z).

    In the precision of the positions.
    """
    multipoles = multipoles.astype(positions.dtype)
    return multipoles[:, :1] * positions + dipole_cartesian(multipoles)


def moments(
    positions: Float[Array, "atoms 3"], multipoles: Float[Array, "atoms components"]
) -> Moments:
    """Charge, dipole and second moment of one system.

    Args:
        positions: atomic positions in Å.
        multipoles: atomic multipoles in e Å^l; zero for padding atoms.

    Returns:
        The moments about the origin.
    """
    charges = multipoles[:, 0]
    dipoles = dipole_cartesian(multipoles)
    return Moments(
        charge=jnp.sum(charges),
        dipole=jnp.sum(atomic_dipole_contributions(positions, multipoles), axis=0),
        second_moment=jnp.sum(charges[:, None] * positions * positions)
        + 2.0 * jnp.sum(dipoles * positions),
    )


def batch_total_charge(
    graph: Graph, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "graphs"]:
    """Total charge of each graph.

    Args:
        multipoles: atomic multipoles in e Å^l.

    Returns:
        Σ Q_i in e.
    """
    return graph.sum_atoms(multipoles[:, 0])


def batch_dipole(
    graph: Graph, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "graphs 3"]:
    """Total dipole of each graph.

    Args:
        multipoles: atomic multipoles in e Å^l.

    Returns:
        Σ Q_i r_i + d_i in e Å, Cartesian x, y, z.
    """
    return graph.sum_atoms(atomic_dipole_contributions(graph.positions, multipoles))


def batch_surplus_dipole(
    graph: Graph, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "graphs 3"]:
    """Dipole about the origin of the charge beyond the total charge of each graph at its centre.

    Less this, the dipole of a density moves with its total charge when the origin moves.

    Args:
        multipoles: atomic multipoles in e Å^l.

    Returns:
        (Σ Q_i - Q) R in e Å (x, y, z), with R the mean of the positions.
    """
    surplus = batch_total_charge(graph, multipoles) - graph.total_charge
    surplus = surplus.astype(graph.positions.dtype)
    atoms = graph.sum_atoms(jnp.ones_like(graph.positions[:, 0]))
    return (surplus / jnp.maximum(atoms, 1.0))[:, None] * graph.sum_atoms(graph.positions)


def batch_external_field_energy(
    graph: Graph, dipole: Float[Array, "graphs 3"]
) -> Float[Array, "graphs"]:
    """Energy of each graph in its external field.

    Args:
        graph: the batch; `external_field` is the gradient of the potential.
        dipole: total dipoles in e Å (x, y, z).

    Returns:
        +D·E in eV.
    """
    return jnp.sum(dipole * jnp.asarray(graph.external_field).astype(dipole.dtype), axis=-1)
