"""Field features: the electrostatic potential projected on Gaussian receivers at each atom.

Features of one atom are ordered by degree l, then by width, then by m = -l … l. They are linear in
the multipoles; with an external potential they gain a constant.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import project_linear_potential, receiver_scale
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.electrostatics.operator import map_graphs, system_matrix, system_projections
from mace_scf_jax.electrostatics.settings import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
)
from mace_scf_jax.electrostatics.system import System
from mace_scf_jax.graph import Graph


def as_features(
    projections: Float[Array, "atoms widths components *columns"], features: FieldFeatureSettings
) -> Float[Array, "atoms features *columns"]:
    """Projections on unit-moment Gaussians, normalised and ordered as features.

    Args:
        projections: in V/Å^l.
        features: degree and widths of the receivers.
    """
    by_width = [
        [receiver_scale(degree, width) for degree in degrees(features.max_l)]
        for width in features.widths
    ]
    num_atoms, _, _, *columns = projections.shape
    scale = jnp.asarray(by_width, dtype=projections.dtype)
    scaled = projections * scale.reshape(*scale.shape, *[1] * len(columns))
    blocks = [
        scaled[:, :, degree**2 : (degree + 1) ** 2].reshape(num_atoms, -1, *columns)
        for degree in range(features.max_l + 1)
    ]
    return jnp.concatenate(blocks, axis=1)


def system_field_features(
    system: System, multipoles: Float[Array, "atoms components"]
) -> Float[Array, "atoms features"]:
    """Field features of the density itself, in a prepared geometry.

    Args:
        system: prepared geometry; its settings have `features`.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.

    Returns:
        ∫ V φ^receiver, ordered by l, then width, then m; 0 for padding atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        ElectrostaticsSettingsError: the settings have no features.
    """
    features = system.settings.receivers
    projections = system_projections(system, multipoles, features)
    return as_features(jnp.where(system.atom_mask[:, None, None], projections, 0.0), features)


def system_response_matrix(system: System) -> Float[Array, "atoms features atoms components"]:
    """Field features of every multipole of every atom, v = T p.

    Args:
        system: prepared geometry whose `has_pair_sums` holds; its settings have `features`.

    Returns:
        T; 0 for padding atoms.

    Raises:
        ElectrostaticsSettingsError: the settings have no features.
        ValueError: `has_pair_sums` does not hold for the system.
    """
    features = system.settings.receivers
    return as_features(system_matrix(system, features), features)


def batch_field_features(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "atoms features"]:
    """Field features of each graph's own density at its atoms.

    Args:
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density, boundary condition and features.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        Features ordered by l, then width, then m; 0 for padding atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        ElectrostaticsSettingsError: the settings have no features.
    """
    features = map_graphs(
        system_field_features, graph, multipoles, settings=settings, prepared=prepared
    )
    return graph.from_slots(features)


def external_field_features(
    positions: Float[Array, "atoms 3"],
    potential: Float[Array, "atoms"],
    field: Float[Array, "atoms 3"],
    *,
    features: FieldFeatureSettings,
) -> Float[Array, "atoms features"]:
    """Field features of an external potential V0 + E·r, in the precision of E.

    Args:
        positions: atomic positions in Å, perhaps in a higher precision.
        potential: V0 in V, per atom (constant within a graph). A Fermi level acts as V0.
        field: E, the gradient of the potential, in V/Å (x, y, z), per atom.
        features: degree and widths of the receivers.

    Returns:
        Features ordered by l, then width, then m. Degrees above 1 are zero.
    """
    at_atoms = jnp.sum(field.astype(positions.dtype) * positions, axis=-1)
    at_atoms = (potential.astype(at_atoms.dtype) + at_atoms).astype(field.dtype)
    return as_features(project_linear_potential(at_atoms, field, features), features)


def features_by_degree(
    flat: Float[Array, "atoms features"], features: FieldFeatureSettings
) -> dict[int, Array]:
    """Field features as node features of one channel for each width.

    Args:
        flat: ordered by degree, then width, then component.
        features: degree and widths of the receivers.

    Returns:
        Degree l -> [atoms, 2l+1, widths].
    """
    widths, start, by_degree = len(features.widths), 0, {}
    for degree in range(features.max_l + 1):
        size = widths * (2 * degree + 1)
        block = flat[:, start : start + size].reshape(flat.shape[0], widths, 2 * degree + 1)
        by_degree[degree] = jnp.swapaxes(block, 1, 2)
        start += size
    return by_degree


def batch_external_field_features(
    graph: Graph,
    potential: Float[Array, "graphs"],
    field: Float[Array, "graphs 3"],
    *,
    features: FieldFeatureSettings,
) -> Float[Array, "atoms features"]:
    """Field features of an external potential V0 + E·r of each graph.

    Args:
        potential: V0 of each graph in V.
        field: E of each graph, the gradient of the potential, in V/Å (x, y, z).
        features: degree and widths of the receivers.

    Returns:
        Features ordered by l, then width, then m; 0 for padding atoms.
    """
    values = external_field_features(
        graph.positions, potential[graph.atom_graph], field[graph.atom_graph], features=features
    )
    return jnp.where(graph.atom_mask[:, None], values, 0.0)
