"""Total charge and multiplicity, imposed on the charges of both spins."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.graph import Graph

_SUMS_IN = jnp.float64
"""Precision of sums over atoms, which decide how exact total charge and spin are."""


def wanted_charges(graph: Graph) -> Float[Array, "graphs 2"]:
    """Charge of each spin of every structure, (Q ± (M - 1))/2 in e.

    Charges count missing electrons, and yet the first spin has M - 1 more of them.
    """
    charge = jnp.asarray(graph.total_charge)
    multiplicity = 1.0 if graph.total_spin is None else jnp.asarray(graph.total_spin)
    excess = multiplicity - 1.0
    return 0.5 * jnp.stack([charge + excess, charge - excess], axis=-1)


def equilibrated(
    graph: Graph,
    density: Float[Array, "atoms components 2"],
    fukui: Float[Array, "atoms 2"],
) -> Float[Array, "atoms components 2"]:
    """Multipoles with the charges that are wanted of each spin; dipoles stay.

    What is missing of a spin goes to the atoms in proportion to their Fukui weights of this spin,
    which may be negative. Weights that add up to exactly 0 count as they are.

    Args:
        density: multipoles of each spin in e Å^l; zero for padding atoms.
        fukui: weights.
    """

    def total(values: Array) -> Float[Array, "graphs 2"]:
        return graph.sum_atoms(values.astype(_SUMS_IN))

    of_all = total(fukui)
    missing = wanted_charges(graph).astype(_SUMS_IN) - total(density[:, 0])
    per_weight = missing / jnp.where(of_all == 0.0, 1.0, of_all)
    change = fukui * per_weight.astype(fukui.dtype)[graph.atom_graph]
    return density.at[:, 0].add(jnp.where(graph.atom_mask[:, None], change, 0.0))
