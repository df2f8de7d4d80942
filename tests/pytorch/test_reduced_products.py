"""Products in another basis of the same polynomials."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.layers.couplings import independent_chains
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.files import read_torch_model
from mace_scf_jax.pytorch.reduced_products import in_basis_of_couplings

MACE = Path(__file__).parents[1] / "data" / "reference" / "models" / "scale_shift_mace.npz"
CONTRACTION = "products.0.symmetric_contractions.contractions.1"


def test_the_basis_of_couplings_is_kept():
    source = read_torch_model(MACE)
    kept = in_basis_of_couplings(source).state
    assert all(kept[name] is values for name, values in source.state.items())


def test_weights_of_another_basis_are_those_of_the_same_polynomials():
    source = read_torch_model(MACE)
    name, weights = f"{CONTRACTION}.U_matrix_2", f"{CONTRACTION}.weights.0"
    couplings = source.state[name]
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(couplings.shape[-1], couplings.shape[-1] - 1))
    reduced = rng.normal(size=(source.state[weights].shape[0], mixed.shape[1], 6))
    changed = source.state | {name: couplings @ mixed, weights: reduced}
    found = in_basis_of_couplings(dataclasses.replace(source, state=changed)).state[weights]
    _, expressed = independent_chains(round(couplings.shape[-2] ** 0.5) - 1, 1, 2)
    np.testing.assert_allclose(
        np.einsum("qp,zpc->qzc", expressed, found),
        np.einsum("qp,pk,zkc->qzc", expressed, mixed, reduced),
        atol=1e-12,
    )


def test_other_polynomials_are_refused():
    source = read_torch_model(MACE)
    name = f"{CONTRACTION}.U_matrix_2"
    other = source.state | {name: np.random.default_rng(1).normal(size=source.state[name].shape)}
    with pytest.raises(TorchConfigurationError, match=r"order 2 and degree 1: .*other polynomials"):
        in_basis_of_couplings(dataclasses.replace(source, state=other))
