"""Rotations of equivariant features, from the harmonics themselves."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mace_scf_jax.layers.harmonics import edge_harmonics


def rotation_matrix_of_degree(rotation: np.ndarray, degree: int) -> np.ndarray:
    """D with Y(R r) = D Y(r), the components of degree l of natural parity."""
    vectors = np.random.default_rng(0).normal(size=(4 * degree + 4, 3))
    components = slice(degree**2, (degree + 1) ** 2)
    before = np.asarray(edge_harmonics(jnp.asarray(vectors), degree))[:, components]
    after = np.asarray(edge_harmonics(jnp.asarray(vectors @ rotation.T), degree))[:, components]
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def rotated(features: dict[int, np.ndarray], rotation: np.ndarray) -> dict[int, np.ndarray]:
    """Features [atoms, 2l+1, channels] of every degree, rotated."""
    return {
        degree: np.einsum("mn,anc->amc", rotation_matrix_of_degree(rotation, degree), value)
        for degree, value in features.items()
    }
