import numpy as np
import pytest

from mace_scf_jax.training.loop.sampling_policy import (
    UNIFORM_SHARE,
    draws,
    energy_weighted,
    error_weighted,
)

EVERY = np.ones(4, dtype=bool)


def test_low_energies_are_preferred_by_their_boltzmann_factors():
    energies = np.array([0.0, 1.0, 2.0, 3.0])
    found = energy_weighted(energies, EVERY)
    factors = np.exp(-energies / np.std(energies))
    expected = UNIFORM_SHARE / 4 + (1.0 - UNIFORM_SHARE) * factors / factors.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(energy_weighted(energies - 2000.0, EVERY), expected, rtol=1e-12)
    assert found.sum() == pytest.approx(1.0, abs=1e-15)


def test_a_structure_without_energy_is_drawn_like_the_average():
    found = energy_weighted(np.array([0.0, 1.0, 2.0, 1e9]), np.array([True, True, True, False]))
    assert found[3] == pytest.approx(found[:3].mean(), rel=1e-14)
    np.testing.assert_array_equal(energy_weighted(np.zeros(4), ~EVERY), np.full(4, 0.25))


def test_large_errors_are_preferred_in_proportion():
    found = error_weighted(np.array([0.0, 1.0, 4.0, 9.0]))
    parts = np.array([0.0, 1.0, 2.0, 3.0]) / 6.0
    np.testing.assert_allclose(found, UNIFORM_SHARE / 4 + (1.0 - UNIFORM_SHARE) * parts, rtol=1e-14)
    np.testing.assert_array_equal(error_weighted(np.zeros(4)), np.full(4, 0.25))


def test_draws_are_unbiased_and_differ_from_their_mean_by_less_than_one():
    rng = np.random.default_rng(0)
    probabilities = rng.random(30)
    probabilities /= probabilities.sum()
    mean = np.zeros(30)
    for epoch in range(2000):
        counts = np.bincount(draws(probabilities, np.random.default_rng(epoch)), minlength=30)
        assert counts.sum() == 30
        assert np.all(np.abs(counts - 30 * probabilities) < 1.0)
        mean += counts / 2000
    # The variance of a number of draws is at most 1/4.
    np.testing.assert_allclose(mean, 30 * probabilities, atol=5 * 0.5 / np.sqrt(2000))


def test_equal_probabilities_give_each_structure_once_in_random_order():
    order = draws(np.full(50, 0.02), np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert not np.array_equal(order, np.arange(50))
