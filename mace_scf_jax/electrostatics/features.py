"""Field features: the electrostatic potential projected on Gaussian receivers at each atom.

Features of one atom are ordered by degree l, then by width, then by m = -l … l. They are linear in
the multipoles; with an external potential they gain a constant.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics.gaussians import receiver_scale, self_interaction
from mace_scf_jax.electrostatics.harmonics import degrees, num_components
from mace_scf_jax.electrostatics.projections import (
    linear_potential_projections,
    system_projections,
)
from mace_scf_jax.electrostatics.settings import (
    ElectrostaticsSettings,
    ElectrostaticsSettingsError,
    FieldFeatureSettings,
)
from mace_scf_jax.electrostatics.system import System, prepare_batch
from mace_scf_jax.graph import Graph


def feature_settings(settings: ElectrostaticsSettings) -> FieldFeatureSettings:
    """The settings of field features.

    Raises:
        ElectrostaticsSettingsError: there are none.
    """
    if settings.features is None:
        raise ElectrostaticsSettingsError("field features were asked for, but features is not set")
    return settings.features


def _in_feature_order(
    projections: Float[Array, "atoms widths components"], features: FieldFeatureSettings
) -> Float[Array, "atoms features"]:
    """Projections on unit-moment Gaussians, normalised and ordered as features."""
    scale = np.array(
        [
            [receiver_scale(degree, width) for degree in degrees(features.max_l)]
            for width in features.widths
        ]
    )
    scaled = projections * jnp.asarray(scale, dtype=projections.dtype)
    num_atoms = projections.shape[0]
    blocks = [
        scaled[:, :, degree**2 : (degree + 1) ** 2].reshape(num_atoms, -1)
        for degree in range(features.max_l + 1)
    ]
    return jnp.concatenate(blocks, axis=-1)


def _own_atom_projections(
    multipoles: Float[Array, "atoms components"], settings: ElectrostaticsSettings
) -> Float[Array, "atoms widths receiver_components"]:
    """Part of the projections that an atom's own Gaussian causes."""
    features = feature_settings(settings)
    shared_l = min(settings.max_l, features.max_l)
    constants = np.array(
        [
            [
                self_interaction(degree, settings.smearing_width, width)
                for degree in degrees(shared_l)
            ]
            for width in features.widths
        ]
    )
    shared = multipoles[:, None, : num_components(shared_l)] * jnp.asarray(
        constants, dtype=multipoles.dtype
    )
    missing = num_components(features.max_l) - num_components(shared_l)
    return jnp.pad(shared, ((0, 0), (0, 0), (0, missing)))


def features_from_projections(
    system: System,
    multipoles: Float[Array, "atoms components"],
    projections: Float[Array, "atoms widths receiver_components"],
) -> Float[Array, "atoms features"]:
    """Field features from projections on unit-moment Gaussians.

    Args:
        system: prepared geometry; its settings have `features`.
        multipoles: atomic multipoles in e Å^l that cause the projections.
        projections: ∫ V φ_lm in V/Å^l, own atoms included.

    Returns:
        Features, own atoms in or out as the settings say; 0 for padding atoms.
    """
    features = feature_settings(system.settings)
    if not features.include_self_interaction:
        projections = projections - _own_atom_projections(multipoles, system.settings)
    projections = jnp.where(system.atom_mask[:, None, None], projections, 0.0)
    return _in_feature_order(projections, features)


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
    features = feature_settings(system.settings)
    projections = system_projections(
        system, multipoles, widths=features.widths, max_l=features.max_l
    )
    return features_from_projections(system, multipoles, projections)


def batch_field_features(
    graph: Graph,
    multipoles: Float[Array, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    prepared: System | None = None,
) -> Float[Array, "atoms features"]:
    """Field features of each graph's own density at its atoms.

    Args:
        graph: the batch.
        multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.
        settings: density, boundary condition and features.
        prepared: result of `prepare_batch` for the same graph and settings, to be reused.

    Returns:
        Features ordered by l, then width, then m; 0 for padding atoms.

    Raises:
        ValueError: the multipoles do not have (max_l + 1)² components.
        ElectrostaticsSettingsError: the settings have no features.
    """
    if prepared is None:
        prepared = prepare_batch(graph, settings=settings)
    return graph.from_slots(jax.vmap(system_field_features)(prepared, graph.to_slots(multipoles)))


def external_field_features(
    positions: Float[Array, "atoms 3"],
    potential: Float[Array, "atoms"],
    field: Float[Array, "atoms 3"],
    *,
    features: FieldFeatureSettings,
) -> Float[Array, "atoms features"]:
    """Field features of an external potential V0 + E·r.

    Args:
        positions: atomic positions in Å.
        potential: V0 in V, per atom (constant within a graph). A Fermi level acts as V0.
        field: E, the gradient of the potential, in V/Å (x, y, z), per atom.
        features: degree and widths of the receivers.

    Returns:
        Features ordered by l, then width, then m. Degrees above 1 are zero.
    """
    at_atoms = potential + jnp.sum(field * positions, axis=-1)
    projections = linear_potential_projections(
        at_atoms, field, num_widths=len(features.widths), max_l=features.max_l
    )
    return _in_feature_order(projections, features)


def batch_external_field_features(
    graph: Graph,
    potential: Float[Array, "graphs"],
    field: Float[Array, "graphs 3"],
    *,
    features: FieldFeatureSettings,
) -> Float[Array, "atoms features"]:
    """Field features of an external potential V0 + E·r of each graph.

    Args:
        graph: the batch.
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
