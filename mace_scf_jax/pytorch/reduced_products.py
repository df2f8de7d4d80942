"""Products of PyTorch models in another basis than that of couplings, brought into this one.

Where cuequivariance is installed, mace-torch may store a smaller basis of the same polynomials
(``use_reduced_cg``): contribution of order ν to degree l

    B_lm = Σ_k w[z, k] Σ U[m, i₁ … i_ν, k] A_i₁ … A_i_ν .

The stored U define any such basis, so that its polynomials can be expressed by those of
`coupling_chains`, and the weights with them.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from mace_scf_jax.layers.couplings import chain_values, coupling_chains
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.module import TorchModel

_STORED = re.compile(r"(?P<contraction>.*\.contractions\.(?P<degree>\d+))\.U_matrix_(?P<order>\d+)")
SAME = 1e-4
"""Relative deviation of polynomials from which they count as others; files in single precision hold
them rounded."""


def in_basis_of_couplings(model: TorchModel) -> TorchModel:
    """Return a model whose products have weights of coupling paths.

    Args:
        model: with the couplings in its state, or without, which are then those of paths.

    Raises:
        TorchConfigurationError: the couplings span other polynomials.
    """
    state = dict(model.state)
    stored = [found for found in map(_STORED.fullmatch, model.state) if found is not None]
    highest = {
        found["contraction"]: max(
            int(other["order"]) for other in stored if other["contraction"] == found["contraction"]
        )
        for found in stored
    }
    for found in stored:
        contraction, degree, order = found["contraction"], int(found["degree"]), int(found["order"])
        coefficients = np.asarray(model.state[found.group()], np.float64)
        expressed = _expressed(coefficients, degree, order)
        if expressed is None:
            continue
        last = highest[contraction]
        weights = f"{contraction}.weights" + ("_max" if order == last else f".{last - 1 - order}")
        state[weights] = np.einsum("jk,zkc->zjc", expressed, state[weights])
    return TorchModel(model.configuration, state)


def _expressed(coefficients: np.ndarray, degree: int, order: int) -> np.ndarray | None:
    """Matrix [paths, stored] that expresses stored polynomials; None where they are the same.

    Args:
        coefficients: U [2l + 1, d, …, d, stored], without the first axis for l = 0.
    """
    size = coefficients.shape[-2]
    max_degree = round(size**0.5) - 1
    if not coefficients.any() or not coupling_chains(max_degree, degree, order):
        return None  # there is no such product
    points, of_paths = _values_of_paths(max_degree, degree, order)
    values = coefficients.reshape(2 * degree + 1, *(size,) * order, -1)
    values = np.einsum("m...ik,si->sm...k", values, points)
    for _ in range(order - 1):
        values = np.einsum("sm...ik,si->sm...k", values, points)
    of_stored = values.reshape(-1, values.shape[-1])
    scale = np.abs(of_stored).max()
    if of_stored.shape == of_paths.shape and np.abs(of_stored - of_paths).max() < SAME * scale:
        return None
    expressed = np.linalg.lstsq(of_paths, of_stored, rcond=1e-10)[0]
    if np.abs(of_paths @ expressed - of_stored).max() > SAME * scale:
        raise TorchConfigurationError(
            f"products of order {order} and degree {degree}: the file has other polynomials than "
            "those of MACE; no public model is known to have such products"
        )
    return expressed


@functools.cache
def _values_of_paths(max_degree: int, degree: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Random points [samples, components]; polynomials there, [samples · (2l + 1), paths]."""
    chains = coupling_chains(max_degree, degree, order)
    points = np.random.default_rng(0).normal(size=(4 * len(chains) + 8, (max_degree + 1) ** 2))
    return points, np.stack([chain_values(chain, points).ravel() for chain in chains], axis=-1)
