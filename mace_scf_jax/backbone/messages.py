"""Messages: the sum over neighbours of radial function × feature × harmonic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbone.couplings import coupling
from mace_scf_jax.backbone.features import Features

Path = tuple[int, int, int]
"""Degrees of (sender feature, edge harmonic, message)."""


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
    harmonics: Float[Array, "edges components"],
    radial: Float[Array, "edges paths*channels"],
    senders: Int[Array, "edges"],
    receivers: Int[Array, "edges"],
    *,
    paths: tuple[Path, ...],
) -> Features:
    """Sum over the neighbours j of each atom i,

        A_i[path, m3] = sum_j R_path(r_ij) sum_{m1 m2} C^{m3}_{m1 m2} h_j[m1] Y_{m2}(r_ij).

    Args:
        features: sender features, degree -> [atoms, 2l+1, channels].
        harmonics: edge harmonics, degrees ascending.
        radial: radial functions R, paths outermost; zero for padding edges.
        senders: sending atom of each edge.
        receivers: receiving atom of each edge, non-decreasing.
        paths: the couplings, from `message_paths`.

    Returns:
        Messages, degree -> [atoms, 2l+1, paths of that degree · channels].
    """
    some = next(iter(features.values()))
    num_atoms, channels = some.shape[0], some.shape[-1]
    radial = radial.reshape(radial.shape[0], len(paths), channels)
    sent = {degree: value[senders] for degree, value in features.items()}
    messages: dict[int, list[Array]] = {}
    for index, (feature, edge, message) in enumerate(paths):
        coefficients = jnp.asarray(coupling(feature, edge, message), some.dtype)
        edge_coupling = jnp.einsum(
            "en,mno->emo", harmonics[:, edge**2 : (edge + 1) ** 2], coefficients
        )
        on_edges = jnp.einsum("emo,emc,ec->eoc", edge_coupling, sent[feature], radial[:, index])
        messages.setdefault(message, []).append(
            jax.ops.segment_sum(
                on_edges, receivers, num_segments=num_atoms, indices_are_sorted=True
            )
        )
    return {degree: jnp.concatenate(parts, axis=-1) for degree, parts in messages.items()}
