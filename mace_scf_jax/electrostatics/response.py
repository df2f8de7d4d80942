"""Field features as a linear operator on the multipoles, v = T p, prepared once per geometry.

Small graphs get T as a dense matrix per graph, larger ones apply the sums over pairs or wavevectors
each time. Both are differentiable in positions and cell, and give the exact adjoint.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics.features import (
    system_field_features,
    system_response_matrix,
)
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.system import System, prepare_batch
from mace_scf_jax.graph import Graph

APPLICATIONS = 64
"""Applications of the sums over wavevectors that making the dense matrix may cost, at most."""

DENSE_ENTRIES = 2**25
"""Most entries of all dense matrices of a batch."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Response:
    """The operator T of a batch of graphs; made by `prepare_response`."""

    graph: Graph
    system: System
    """Prepared geometries, with a leading axis of graphs."""
    matrices: Float[Array, "graphs slots_features slots_components"] | None
    """T of each graph, with rows (atom, feature) and columns (atom, component); None if it is
    applied without being formed."""

    def apply(self, multipoles: Float[Array, "atoms components"]) -> Float[Array, "atoms features"]:
        """Field features T p of multipoles p.

        Args:
            multipoles: atomic multipoles in e Å^l, in the order of `harmonics`.

        Returns:
            What `batch_field_features` gives; 0 for padding atoms.

        Raises:
            ValueError: the multipoles do not have (max_l + 1)² components.
        """
        self.system.require_components(multipoles)
        return self.graph.from_slots(self.apply_in_slots(self.graph.to_slots(multipoles)))

    def apply_in_slots(
        self, multipoles: Float[Array, "graphs slots components"]
    ) -> Float[Array, "graphs slots features"]:
        """Field features T p of multipoles p, both in the dense view; see `apply`."""
        if self.matrices is None:
            return jax.vmap(system_field_features)(self.system, multipoles)
        return _apply_matrices(self.matrices, multipoles)

    def transpose(
        self, features: Float[Array, "atoms features"]
    ) -> Float[Array, "atoms components"]:
        """The adjoint Tᵀ v: Σ (Tᵀ v) p = Σ v (T p) for all p and v.

        Args:
            features: cotangent of the features.

        Returns:
            Cotangent of the multipoles; 0 for padding atoms.
        """
        in_slots = self.graph.to_slots(features)
        if self.matrices is None:
            multipoles = jax.vmap(_system_transpose)(self.system, in_slots)
        else:
            multipoles = _apply_matrices(jnp.swapaxes(self.matrices, -1, -2), in_slots)
        return self.graph.from_slots(multipoles)


def prepare_response(
    graph: Graph,
    *,
    settings: ElectrostaticsSettings,
    dense: bool | None = None,
    prepared: System | None = None,
) -> Response:
    """Prepare the response of field features to multipoles for every graph of a batch.

    Args:
        settings: density, boundary condition and features.
        dense: whether to form the matrix of each graph; None chooses by the padded sizes.
        prepared: what `prepare_batch` gave for this graph and settings, to be reused.

    Returns:
        The operator, to be applied any number of times.

    Raises:
        ElectrostaticsSettingsError: the settings have no features.
        ValueError: dense matrices are asked for a geometry without phases in memory.
    """
    if prepared is None:
        prepared = prepare_batch(graph, settings=settings)
    if dense is None:
        dense = prepared.has_pair_sums and _dense_pays(graph, settings)
    matrices = None
    if dense:
        matrices = jax.vmap(system_response_matrix)(prepared)
        matrices = matrices.reshape(len(matrices), math.prod(matrices.shape[1:3]), -1)
    # kept in memory by XLA, which otherwise makes them once for every use
    matrices = jax.lax.optimization_barrier(matrices)
    return Response(graph, prepared, matrices)


def _dense_pays(graph: Graph, settings: ElectrostaticsSettings) -> bool:
    """Whether dense matrices fit in memory and are worth being made.

    Per graph of N atoms, C multipoles and F features each, and K wavevectors, an application takes
    about 4 K N (C + F) operations as sums and 2 N² F C as a matrix, which takes 4 K N² F C to make.
    """
    num_graphs, num_slots = graph.slots.shape
    num_features = settings.receivers.num_features
    per_pair = num_features * settings.num_multipoles
    if num_graphs * num_slots**2 * per_pair > DENSE_ENTRIES:
        return False
    if settings.boundary is BoundaryMode.REALSPACE:
        # Sums over pairs evaluate special functions each time, so the matrix always pays.
        return True
    if graph.open_slots and not graph.k_indices.shape[1]:
        return True
    applications_to_make = num_slots * per_pair / (num_features + settings.num_multipoles)
    four_times_cheaper = graph.k_indices.shape[1] >= 2.0 * applications_to_make
    return four_times_cheaper and applications_to_make <= APPLICATIONS


def _apply_matrices(
    matrices: Float[Array, "graphs rows columns"], values: Float[Array, "graphs slots of_values"]
) -> Float[Array, "graphs slots of_results"]:
    num_graphs, num_slots, _ = values.shape
    flat = values.reshape(num_graphs, -1, 1)
    product = jnp.matmul(matrices, flat, precision=jax.lax.Precision.HIGHEST)
    return product.reshape(num_graphs, num_slots, -1)


def _system_transpose(
    system: System, features: Float[Array, "atoms features"]
) -> Float[Array, "atoms components"]:
    shape = (features.shape[0], system.settings.num_multipoles)
    zero = jnp.zeros(shape, dtype=features.dtype)
    transpose = jax.linear_transpose(lambda p: system_field_features(system, p), zero)
    (multipoles,) = transpose(features)
    return multipoles
