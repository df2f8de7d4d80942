"""The three-body term of Axilrod, Teller and Muto, of all triangles of atoms and their images."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from ase.units import Bohr
from jaxtyping import Array, Float

from mace_scf_jax.dispersion.blocks import ITSELF, Blocks, lattice_vectors, sum_of_first
from mace_scf_jax.dispersion.library import ElementData
from mace_scf_jax.dispersion.settings import DispersionSettings
from mace_scf_jax.graph import Graph

RADII_SCALE = 4.0 / 3.0
"""Factor on the cutoff radii in the damping."""
STEEPNESS = 16.0
"""Exponent α of the damping."""
_SITES_AT_ONCE = 256


def three_body_energy(
    settings: DispersionSettings,
    data: ElementData,
    graph: Graph,
    blocks: Blocks,
    of_c6: tuple[Float[Array, "atoms m"], Float[Array, "atoms m"]],
) -> Float[Array, "graphs"]:
    """Energy of all triangles with sides within the cutoff (Grimme 2010, eqs. 11 to 14), hartree.

    E = Σ_ABC √(C₆,AB C₆,BC C₆,CA) (3 cos α cos β cos γ + 1) / (r_AB r_BC r_CA)³ f,
    f = 1 / (1 + 6 (R₀,AB R₀,BC R₀,CA / (r_AB r_BC r_CA))^(α/3)), with 4/3 in R₀.

    For each corner A, sites B and C are tried that are within the cutoff of A: the work is the
    square of their number.

    Args:
        of_c6: two vectors of every atom of which products give C6.
    """
    kinds, species = jnp.asarray(graph.images.kinds), jnp.asarray(graph.species)
    dtype = of_c6[0].dtype
    radii = RADII_SCALE * jnp.asarray(data.pair_radii, dtype)[species][:, kinds]
    is_kind = (species[:, None] == kinds).astype(dtype)
    flat = (graph.num_graphs, -1)
    left, right, radii_left, radii_right = (
        blocks.take(each).reshape(*flat, each.shape[-1]) for each in (*of_c6, radii, is_kind)
    )
    positions = blocks.positions.reshape(*flat, 3)
    exists = blocks.mask.reshape(flat)
    translations = lattice_vectors(graph)
    reach = settings.three_body_cutoff

    num_atoms = positions.shape[1]
    num_sites = num_atoms * translations.shape[1]
    size = min(_SITES_AT_ONCE, num_sites)
    num_tiles = math.ceil(num_sites / size)
    # by the last site, so that those within the cutoff come first
    last, first_of = (each.astype(np.int32) for each in np.tril_indices(num_tiles))

    def of_corner(corner: tuple[Array, Array]) -> Float[Array, ""]:
        structure, atom = corner
        sites = (positions[structure][:, None, :] + translations[structure]).reshape(-1, 3)
        vectors = sites - positions[structure, atom]
        squared = jnp.sum(vectors**2, axis=-1)
        real = exists[structure][:, None] & jnp.asarray(graph.images.mask)[structure]
        within = real.reshape(-1) & (squared <= reach**2) & (squared > ITSELF)
        within &= exists[structure, atom]
        order = jnp.argsort(~within, stable=True)
        order = jnp.pad(order, (0, num_tiles * size - num_sites)).reshape(num_tiles, size)
        count = jnp.sum(within, dtype=jnp.int32)
        numbers = jnp.arange(num_tiles * size, dtype=jnp.int32).reshape(num_tiles, size)
        atom_of_site = order // translations.shape[1]

        def of_tile(first: Array, second: Array) -> Float[Array, ""]:
            def ends(tile: Array) -> tuple[Array, ...]:
                atoms, listed = atom_of_site[tile], numbers[tile] < count
                vector = jnp.where(listed[:, None], vectors[order[tile]] / Bohr, 1.0)
                c6 = right[structure][atoms] @ left[structure, atom]
                radius = radii_right[structure][atoms] @ radii_left[structure, atom]
                return atoms, listed, vector, c6, radius

            b, listed_b, to_b, c6_ab, r0_ab = ends(first)
            c, listed_c, to_c, c6_ac, r0_ac = ends(second)
            c6_bc = left[structure][b] @ right[structure][c].T
            r0_bc = radii_left[structure][b] @ radii_right[structure][c].T
            ab, ac = jnp.sum(to_b**2, axis=-1)[:, None], jnp.sum(to_c**2, axis=-1)[None, :]
            bc = sum((to_b[:, None, axis] - to_c[None, :, axis]) ** 2 for axis in range(3))
            counted = listed_b[:, None] & listed_c[None, :]
            counted &= (bc <= (reach / Bohr) ** 2) & (bc > ITSELF / Bohr**2)
            bc = jnp.where(counted, bc, 1.0)
            sides = (ab * ac * bc).astype(dtype)
            cosines = (ab + ac - bc) * (ab + bc - ac) * (ac + bc - ab)  # times 8 sides
            angles = (0.375 * cosines.astype(dtype) / sides + 1.0) / sides**1.5
            ratio = r0_ab[:, None] * r0_ac[None, :] * r0_bc / jnp.sqrt(sides)
            damping = 1.0 / (1.0 + 6.0 * ratio ** (STEEPNESS / 3.0))
            c9 = c6_ab[:, None] * c6_ac[None, :] * c6_bc
            c9 = jnp.sqrt(jnp.where(counted, c9, 1.0))
            terms = jnp.where(counted, c9 * angles * damping, 0.0)
            both_orders = jnp.where(first == second, 1.0, 2.0)
            return both_orders * jnp.sum(terms).astype(positions.dtype)

        full = (count + size - 1) // size
        return sum_of_first(
            lambda _, tile: of_tile(jnp.asarray(first_of)[tile[0]], jnp.asarray(last)[tile[0]]),
            jnp.arange(len(last), dtype=jnp.int32),
            full * (full + 1) // 2,
            at_once=1,
        )

    def of_atom(corner: tuple[Array, Array]) -> Float[Array, ""]:
        nothing = jnp.zeros((), positions.dtype)
        return jax.lax.cond(exists[corner], lambda: of_corner(corner), lambda: nothing)

    structures, atoms = np.indices((graph.num_graphs, num_atoms), dtype=np.int32)
    corners = (jnp.asarray(structures.reshape(-1)), jnp.asarray(atoms.reshape(-1)))
    of_corners = jax.lax.map(jax.checkpoint(of_atom), corners).reshape(graph.num_graphs, num_atoms)
    # every triangle is found at three corners, in two orders
    return jnp.sum(of_corners, axis=1) / 6.0
