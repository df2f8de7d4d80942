import jax
import numpy as np
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.training.loop.force_supervision import ForceSupervision

LABELLED = np.arange(40) % 4 != 0
"""30 of 40 structures have forces."""


def supervision(**changes):
    return ForceSupervision(**({"labelled": LABELLED, "seed": 1, "fraction": 0.2} | changes))


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
    assert supervision(unbiased=False).factors(0).sum() == 6


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
        ({"fraction": 0.0}, "force_fraction: found 0.0, expected above 0"),
        ({"resample_epochs": 0}, "force_resample_epochs: found 0, expected at least 1"),
        ({"min_structures": 0}, "force_min_structures: found 0, expected at least 1"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        supervision(**changes)
