"""Messages: the sum over neighbours of radial function × feature × harmonic."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.layers.couplings import component_slice, coupling
from mace_scf_jax.layers.features import Features

Path = tuple[int, int, int]
"""Degrees of (sender feature, edge harmonic, message)."""


class Edges(NamedTuple):
    """The edges of a batch as interactions see them."""

    harmonics: Float[Array, "edges components"]
    """Degrees ascending."""
    radial_basis: Float[Array, "edges basis"]
    senders: Int[Array, "edges"]
    receivers: Int[Array, "edges"]
    """Non-decreasing."""
    neighbours_per_atom: int | None = None
    """If atom i owns exactly the edges [i K, (i + 1) K), that K. Sums over neighbours are then
    matrix products, several times faster."""
    weight: Float[Array, "edges"] | None = None
    """Factor on what an edge contributes: the cutoff where the radial basis is without it, and 0
    for padding edges. None where the radial basis has the cutoff and is 0 for padding edges, and
    with it all that is made of it."""

    def weigh(self, values: Float[Array, "edges width"]) -> Float[Array, "edges width"]:
        """Return values of the edges with their weights."""
        return values if self.weight is None else values * self.weight[:, None]

    def sum_incoming(
        self, values: Float[Array, "edges width"], num_atoms: int
    ) -> Float[Array, "atoms width"]:
        """Return the sum of values over the edges that end at each atom."""
        return jax.ops.segment_sum(
            values, self.receivers, num_segments=num_atoms, indices_are_sorted=True
        )


def message_paths(
    feature_degrees: tuple[int, ...], max_edge_degree: int, max_message_degree: int
) -> tuple[Path, ...]:
    """All couplings of features and harmonics into messages of natural parity.

    Ordered by the degree of the message, then of the feature, then of the harmonic: the order in
    which the radial network numbers its outputs.
    """
    return tuple(
        (feature, edge, message)
        for message in range(max_message_degree + 1)
        for feature in feature_degrees
        for edge in range(max_edge_degree + 1)
        if abs(feature - edge) <= message <= feature + edge and (feature + edge + message) % 2 == 0
    )


def aggregate_messages(
    features: Features,
    radial: Float[Array, "edges paths_and_channels"],
    edges: Edges,
    *,
    paths: tuple[Path, ...],
) -> Features:
    """Sum over the neighbours j of each atom i,

        A_i[path, m3] = sum_j R_path(r_ij) sum_{m1 m2} C^{m3}_{m1 m2} h_j[m1] Y_{m2}(r_ij).

    Args:
        features: sender features, degree -> [atoms, 2l+1, channels].
        radial: radial functions R, paths outermost; zero for padding edges.
        edges: harmonics, and which atoms edges connect.
        paths: the couplings, from `message_paths`.

    Returns:
        Messages, degree -> [atoms, 2l+1, paths of that degree · channels].
    """
    sent = {degree: value[edges.senders] for degree, value in features.items()}
    # The derivative of a split is one concatenation, that of many slices as many padded sums.
    of_paths = jnp.split(radial, len(paths), axis=1)
    num_atoms = next(iter(features.values())).shape[0]
    if edges.neighbours_per_atom is None:
        by_path = _sum_sorted_edges(sent, of_paths, edges, num_atoms, paths)
    else:
        by_path = _sum_padded_neighbours(sent, of_paths, edges.harmonics, num_atoms, paths)
    return {
        degree: jnp.concatenate([by_path[path] for path in paths if path[2] == degree], axis=-1)
        for degree in dict.fromkeys(path[2] for path in paths)
    }


def _sum_sorted_edges(
    sent: Features, radial: list[Array], edges: Edges, num_atoms: int, paths: tuple[Path, ...]
) -> dict[Path, Array]:
    """Couple on every edge, then sum over the edges of each receiver."""
    messages = {}
    for index, path in enumerate(paths):
        feature, edge, _ = path
        harmonics = edges.harmonics[:, component_slice(edge)]
        coefficients = jnp.asarray(coupling(*path), harmonics.dtype)
        edge_coupling = jnp.einsum("en,mno->emo", harmonics, coefficients)
        on_edges = jnp.einsum("emo,emc,ec->eoc", edge_coupling, sent[feature], radial[index])
        messages[path] = jax.ops.segment_sum(
            on_edges, edges.receivers, num_segments=num_atoms, indices_are_sorted=True
        )
    return messages


def _sum_padded_neighbours(
    sent: Features, radial: list[Array], harmonics: Array, num_atoms: int, paths: tuple[Path, ...]
) -> dict[Path, Array]:
    """Sum R h_j against the harmonics by a matrix product over neighbours, couple per atom."""
    messages = {}
    for edge in dict.fromkeys(path[1] for path in paths):
        members = [index for index, path in enumerate(paths) if path[1] == edge]
        weighted = jnp.concatenate(
            [sent[paths[index][0]] * radial[index][:, None] for index in members], axis=1
        )
        _, rows, channels = weighted.shape
        summed = jnp.einsum(
            "akn,akv->anv",
            harmonics[:, component_slice(edge)].reshape(num_atoms, -1, 2 * edge + 1),
            weighted.reshape(num_atoms, -1, rows * channels),
        ).reshape(num_atoms, 2 * edge + 1, rows, channels)
        row = 0
        for index in members:
            path = paths[index]
            stop = row + 2 * path[0] + 1
            messages[path] = jnp.einsum(
                "anmc,mno->aoc",
                summed[:, :, row:stop],
                jnp.asarray(coupling(*path), harmonics.dtype),
            )
            row = stop
    return messages
