"""Which structures an epoch draws, and which forces it is trained on."""

import jax
import numpy as np
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.training.loop.options import SamplingOptions
from mace_scf_jax.training.loop.sampling import (
    UNIFORM_SHARE,
    ForceSupervision,
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


LABELLED = np.arange(40) % 4 != 0
"""30 of 40 structures have forces."""


def supervision(labelled=LABELLED, seed=1, **changes):
    options = {f"force_{name}": value for name, value in ({"fraction": 0.2} | changes).items()}
    return ForceSupervision(labelled, seed, SamplingOptions(**options))


def chosen(given, epoch):
    return np.flatnonzero(given.factors(epoch))


def test_the_choice_is_fixed_or_made_anew_every_few_epochs():
    fixed, renewed = supervision(), supervision(resample_epochs=3)
    for given in (fixed, renewed):
        assert given.count == 6
        for epoch in range(9):
            assert len(chosen(given, epoch)) == 6
            assert LABELLED[chosen(given, epoch)].all()
            np.testing.assert_array_equal(given.factors(epoch), given.factors(epoch))
    draws = [[tuple(chosen(given, epoch)) for epoch in range(9)] for given in (fixed, renewed)]
    assert len(set(draws[0])) == 1
    assert [len(set(draws[1][start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(draws[1])) == 3
    assert tuple(chosen(supervision(seed=2), 0)) != draws[0][0]


@pytest.mark.parametrize(
    ("fraction", "least", "count"), [(0.5, 1, 15), (0.01, 1, 1), (0.1, 12, 12), (0.5, 99, 30)]
)
def test_the_number_of_structures(fraction, least, count):
    given = supervision(fraction=fraction, min_structures=least)
    assert given.count == count == len(chosen(given, 0))
    assert given.factor == 30 / count


def test_every_structure_has_the_expected_factor_one():
    given = supervision(resample_epochs=1)
    epochs = 4000
    mean = np.mean([given.factors(epoch) for epoch in range(epochs)], axis=0)
    # A factor is 5 with probability 1/5, else 0: standard deviation 2, of the mean 0.032.
    np.testing.assert_allclose(mean[LABELLED], 1.0, atol=5 * 2 / np.sqrt(epochs))
    assert not mean[~LABELLED].any()
    assert given.factors(0).sum() == LABELLED.sum()
    assert supervision(scale_unbiased=False).factors(0).sum() == 6


def test_only_weights_of_forces_change():
    given = supervision()
    used, unused = chosen(given, 0)[0], np.flatnonzero(LABELLED & (given.factors(0) == 0.0))[0]
    graphs = [tiny_graph(0), tiny_graph(1)]
    members = [np.array([used, unused]), np.array([unused, used])]
    found = list(given.applied(graphs, members, epoch=0))
    np.testing.assert_array_equal(found[0].weights["forces"], [5.0, 0.0, 0.0])
    np.testing.assert_array_equal(found[1].weights["forces"], [0.0, 5.0, 0.0])
    for before, after in zip(graphs, found, strict=True):
        np.testing.assert_array_equal(before.weights["forces"], [1.0, 1.0, 0.0])
        restored = after.replace(weights={**after.weights, "forces": before.weights["forces"]})
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, b, strict=True), restored, before
        )
        assert after.weights["forces"].dtype == before.weights["forces"].dtype


def test_without_any_forces_nothing_is_chosen():
    given = supervision(labelled=np.zeros(5, dtype=bool))
    assert (given.count, given.factor) == (0, 1.0)
    assert not given.factors(0).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 0.0}, "force_fraction: expected a number above 0, found 0.0"),
        ({"resample_epochs": 0}, "force_resample_epochs: expected a number of at least 1, found 0"),
        ({"min_structures": 0}, "force_min_structures: expected a number of at least 1, found 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        supervision(**changes)
