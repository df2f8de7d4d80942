"""The D3 dispersion energy: what follows is in atomic units, but for positions and cutoffs in Å.

Equations are numbered as in Grimme et al. 2010 (J. Chem. Phys. 132, 154104) and Grimme et al. 2011
(J. Comput. Chem. 32, 1456).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ase.units import Bohr, Hartree
from jaxtyping import Array, Float

from mace_scf_jax.dispersion.blocks import Blocks, Pairs, blocks_of, sum_over_pairs
from mace_scf_jax.dispersion.library import ElementData, element_data
from mace_scf_jax.dispersion.settings import DispersionSettings
from mace_scf_jax.dispersion.three_body import three_body_energy
from mace_scf_jax.graph import Graph

COUNTING_STEEPNESS = 16.0
"""k1 of the coordination number."""
REFERENCE_STEEPNESS = 4.0
"""k3 of the weights of reference systems."""


def dispersion_energy(
    settings: DispersionSettings, elements: tuple[int, ...], graph: Graph
) -> Float[Array, "graphs"]:
    """Dispersion energy of every structure in eV, in double precision; zero for padding.

    Pairs are computed in the precision of the batch.

    Args:
        elements: atomic numbers that species stand for.
        graph: with `Graph.images` of at least the cutoff.

    Raises:
        ValueError: the batch has no images, or none so far away.
    """
    if graph.images is None or graph.images.reach < settings.cutoff:
        found = "none" if graph.images is None else f"those of {graph.images.reach:.2f} Å"
        raise ValueError(
            f"dispersion: expected a batch with images within {settings.cutoff:.2f} Å, found "
            f"{found} (mace_scf_jax.dispersion.with_pair_images)"
        )
    data, blocks = element_data(elements), blocks_of(graph)
    species, dtype = jnp.asarray(graph.species), graph.dtype
    coordination = coordination_numbers(settings, data, graph, blocks)
    weights = reference_weights(data, species, coordination)
    of_c6 = factors_of_c6(data, graph, weights.astype(dtype))
    energy = pair_energy(settings, data, graph, blocks, of_c6)
    if settings.has_three_body:
        energy += three_body_energy(settings, data, graph, blocks, of_c6)
    return jnp.where(graph.graph_mask, Hartree * energy, 0.0)


def coordination_numbers(
    settings: DispersionSettings, data: ElementData, graph: Graph, blocks: Blocks
) -> Float[Array, "atoms"]:
    """Number of neighbours of every atom (2010, eq. 15), in double precision.

    CN_A = Σ_B 1 / (1 + exp(-k₁ (R_cov,AB / r_AB - 1))), with 4/3 in the radii.
    """
    radii = jnp.asarray(data.covalent_radii)[graph.species]
    with_radii, cutoff = blocks.with_positions(radii[:, None]), settings.coordination_cutoff
    dtype, shape = graph.dtype, blocks.mask.shape

    def part(pairs: Pairs) -> Float[Array, "graphs blocks size"]:
        first, second = pairs.ends(with_radii)
        squared = pairs.squared_distances(first, second)
        counted = pairs.counted(blocks, squared, cutoff)
        distance = jnp.sqrt(jnp.where(counted, squared, 1.0)).astype(dtype) / Bohr
        both = (first[:, :, None, 3] + second[:, None, :, 3]).astype(dtype)
        count = jax.nn.sigmoid(COUNTING_STEEPNESS * (both / distance - 1.0))
        count = jnp.where(counted, count, 0.0) * pairs.weight.astype(dtype)[:, None, None]
        of_first = jnp.sum(count, axis=2).astype(radii.dtype)
        of_second = jnp.sum(count, axis=1).astype(radii.dtype)
        sums = jnp.zeros(shape, radii.dtype).at[pairs.graph, pairs.first].add(of_first)
        return sums.at[pairs.graph, pairs.second].add(of_second)

    in_blocks_counted = sum_over_pairs(graph, blocks, cutoff, part)
    counted = jnp.zeros(graph.num_atoms, radii.dtype)
    return counted.at[blocks.atoms].add(jnp.where(blocks.mask, in_blocks_counted, 0.0))


def reference_weights(
    data: ElementData, species: Array, coordination: Float[Array, "atoms"]
) -> Float[Array, "atoms references"]:
    """Weight of each reference system of an atom, L_i ∝ exp(-k₃ (CN - CN_i)²) (2010, eq. 16)."""
    references = jnp.asarray(data.reference_coordination)[species]
    exists = jnp.isfinite(references)
    difference = coordination[:, None] - jnp.where(exists, references, 0.0)
    return jax.nn.softmax(-REFERENCE_STEEPNESS * difference**2, axis=-1, where=exists)


def pair_energy(
    settings: DispersionSettings,
    data: ElementData,
    graph: Graph,
    blocks: Blocks,
    of_c6: tuple[Float[Array, "atoms m"], Float[Array, "atoms m"]],
) -> Float[Array, "graphs"]:
    """Sum over pairs with Becke–Johnson damping (2011, eqs. 1, 6 and 7), in hartree.

    E = -Σ_AB C₆ [s₆ / (r⁶ + f(R₀)⁶) + s₈ (C₈/C₆) / (r⁸ + f(R₀)⁸)], f(R₀) = a₁ R₀ + a₂,
    R₀ = √(C₈/C₆), C₈/C₆ = 3 √Q_A √Q_B.

    Args:
        of_c6: two vectors of every atom of which products give C6.
    """
    dtype = graph.dtype
    # √(C₈/C₆) is a product of a number for each atom
    root = jnp.sqrt(jnp.sqrt(3.0) * jnp.asarray(data.r4_over_r2))[graph.species, None]
    left, right = (blocks.with_positions(root, each) for each in of_c6)
    num_graphs = graph.num_graphs

    def part(pairs: Pairs) -> Float[Array, "graphs"]:
        (first, _), (_, second) = pairs.ends(left), pairs.ends(right)
        squared = pairs.squared_distances(first, second)
        counted = pairs.counted(blocks, squared, settings.cutoff)
        squared = (jnp.where(counted, squared, 1.0) / Bohr**2).astype(dtype)
        first, second = first.astype(dtype), second.astype(dtype)
        c6 = jnp.einsum("pak,pbk->pab", first[..., 4:], second[..., 4:])
        radius = first[:, :, None, 3] * second[:, None, :, 3]
        damping = (settings.a1 * radius + settings.a2) ** 2
        sixth, damping_sixth = squared**3, damping**3
        terms = settings.s6 / (sixth + damping_sixth)
        terms += settings.s8 * radius**2 / (sixth * squared + damping_sixth * damping)
        energy = jnp.sum(jnp.where(counted, -c6 * terms, 0.0), axis=(1, 2))
        energy = energy.astype(graph.positions.dtype) * pairs.weight
        return jnp.zeros(num_graphs, energy.dtype).at[pairs.graph].add(energy)

    return sum_over_pairs(graph, blocks, settings.cutoff, part)


def factors_of_c6(
    data: ElementData, graph: Graph, weights: Float[Array, "atoms references"]
) -> tuple[Float[Array, "atoms m"], Float[Array, "atoms m"]]:
    """Two vectors of every atom of which products give C6 (2010, eq. 16).

    C₆ = Σ_ij L_i L_j C₆,ij, a sum over the reference systems of both elements; the vectors have
    entries for those of all elements that occur.
    """
    kinds = jnp.asarray(graph.images.kinds)
    table = jnp.asarray(data.reference_c6, weights.dtype)[:, kinds]  # of padding: multiplies zeros
    left = jnp.einsum("ai,akij->akj", weights, table[graph.species])
    right = jnp.where((graph.species[:, None] == kinds)[..., None], weights[:, None, :], 0.0)
    return left.reshape(len(left), -1), right.reshape(len(right), -1)
