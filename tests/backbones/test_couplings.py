"""Coupling coefficients: orthonormal, equivariant, with the signs of e3nn."""

from __future__ import annotations

import numpy as np
import pytest
from mace_tensors import contracted, reference_tensors
from rotations import rotation_matrix_of_degree
from tiny_models import random_rotation

from mace_scf_jax.layers.couplings import (
    chain_values,
    coupling,
    coupling_chains,
    independent_chains,
)
from mace_scf_jax.layers.wigner import computed_3j, tabulated, wigner_3j

TRIPLES = [
    (l1, l2, l3)
    for l1 in range(4)
    for l2 in range(4)
    for l3 in range(abs(l1 - l2), min(l1 + l2, 4) + 1)
]


def test_the_table_is_what_e3nn_computes():
    for degrees in tabulated():
        np.testing.assert_allclose(wigner_3j(*degrees), computed_3j(*degrees), atol=1e-15)


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_other_orders_of_the_degrees_follow(l1, l2, l3):
    np.testing.assert_allclose(wigner_3j(l1, l2, l3), computed_3j(l1, l2, l3), atol=1e-14)


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_columns_are_orthonormal(l1, l2, l3):
    columns = coupling(l1, l2, l3).reshape(-1, 2 * l3 + 1)
    np.testing.assert_allclose(columns.T @ columns, np.eye(2 * l3 + 1), atol=1e-14)


@pytest.mark.parametrize(("l1", "l2", "l3"), [t for t in TRIPLES if sum(t) % 2 == 0])
def test_a_rotation_of_all_three_degrees_changes_nothing(l1, l2, l3):
    rotation = random_rotation(1)
    symbol = wigner_3j(l1, l2, l3)
    matrices = [rotation_matrix_of_degree(rotation, degree) for degree in (l1, l2, l3)]
    turned = np.einsum("abc,ai,bj,ck->ijk", symbol, *matrices)
    np.testing.assert_allclose(turned, symbol, atol=1e-13)


def test_vectors_couple_to_their_dot_and_cross_product():
    a, b = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_allclose(
        np.einsum("i,j,ijk->k", a, b, coupling(1, 1, 0)), [a @ b / np.sqrt(3)], rtol=1e-14
    )
    # Components are y, z, x: a cyclic permutation, which leaves the cross product as it is.
    np.testing.assert_allclose(
        np.einsum("i,j,ijk->k", a, b, coupling(1, 1, 1)), np.cross(a, b) / np.sqrt(2), rtol=1e-14
    )


def test_vectors_couple_to_the_zz_component_of_degree_two():
    # (a ⊗ b)_2, m = 0, is (2 a_z b_z - a_x b_x - a_y b_y)/√6, components in the order y, z, x.
    expected = np.diag([-1.0, 2.0, -1.0]) / np.sqrt(6)
    np.testing.assert_allclose(coupling(1, 1, 2)[:, :, 2], expected, atol=1e-15)


@pytest.mark.parametrize("name", ["product_basis_corr3_lmax3_l1", "product_basis_corr3_lmax2_l2"])
def test_chains_are_the_coupling_paths_of_mace(name):
    for (degree, order), tensor in reference_tensors(name).items():
        factors = np.random.default_rng(0).normal(size=(3, tensor.shape[1]))
        max_degree = round(np.sqrt(tensor.shape[1])) - 1
        chains = coupling_chains(max_degree, degree, order)
        expected = np.stack([contracted(tensor, row) for row in factors])
        values = np.stack([chain_values(chain, factors) for chain in chains], axis=-1)
        np.testing.assert_allclose(values, expected, atol=1e-12)


def number_of_covariants(max_degree: int, degree: int, order: int) -> int:
    """How often an irrep of natural parity occurs in the symmetric power, by its character."""
    angles = 2 * np.pi * np.arange(64) / 64

    def character(l: int, power: int) -> np.ndarray:
        return sum(np.cos(m * power * angles) for m in range(-l, l + 1))

    total = 0.0
    for sign in (1, -1):  # rotations, and rotations with inversion
        p1, p2, p3 = (
            sum(sign ** (l * power) * character(l, power) for l in range(max_degree + 1))
            for power in (1, 2, 3)
        )
        symmetric = {1: p1, 2: (p1**2 + p2) / 2, 3: (p1**3 + 3 * p1 * p2 + 2 * p3) / 6}[order]
        density = 1 - np.cos(angles)
        total += np.mean(density * symmetric * sign**degree * character(degree, 1)) / 2
    return round(float(total))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_as_many_independent_chains_as_there_are_covariant_polynomials(degree, order):
    chosen, expressed = independent_chains(3, degree, order)
    assert len(chosen) == number_of_covariants(3, degree, order)
    factors = np.random.default_rng(1).normal(size=(20, 16))
    basis = np.stack([chain_values(chain, factors) for chain in chosen], axis=-1)
    chains = coupling_chains(3, degree, order)
    values = np.stack([chain_values(chain, factors) for chain in chains], axis=-1)
    np.testing.assert_allclose(basis @ expressed, values, atol=1e-11)


def test_an_unreachable_degree_has_no_chains():
    assert coupling_chains(1, 3, 2) == ()
    assert independent_chains(1, 3, 2)[0] == ()
