"""Scores of dipoles and Born charges: hand-made labels, finite differences, order of indices."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from tiny_models import molecule, periodic, tiny_model

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.predict.born_charge_labels import read_born_charges
from mace_scf_jax.predict.response_scores import Agreement
from mace_scf_jax.simulate import Model, evaluate_file, predict_response, score_born_charges

STEP = 1e-4


def test_agreement_of_numbers_that_are_known():
    found = Agreement.of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 4.0, 6.0, 8.0]))
    assert found.count == 4
    assert found.rmse == pytest.approx(np.sqrt(30 / 4))
    assert (found.slope, found.r_squared) == pytest.approx((2.0, 1.0 - 30 / 5))
    assert found.pearson_squared == pytest.approx(1.0)
    opposite = Agreement.of(np.array([1.0, -1.0]), np.array([-1.0, 1.0]))
    assert (opposite.slope, opposite.r_squared) == pytest.approx((-1.0, -3.0))
    same = Agreement.of(np.array([2.0, 2.0]), np.array([1.0, 3.0]))
    assert np.isnan([same.r_squared, same.pearson_squared]).all()


@functools.cache
def model() -> Model:
    return tiny_model("LocalSplitCharges")


@functools.cache
def labelled(scale: float = 1.0):
    """A molecule and a crystal with Born charges and a dipole by finite differences, as rows of the
    displacement."""
    structures = [molecule(), periodic()]
    for atoms in structures:
        atoms.info["total_charge"] = -1.1  # that of the formal charges
        moved = []
        for place in np.ndindex(len(atoms), 3):
            for step in (STEP, -STEP):
                moved.append(atoms.copy())
                moved[-1].positions[place] += step
        dipoles = [it["dipole"] for it in model().predict([atoms, *moved], forces=False)]
        slopes = (np.array(dipoles[1::2]) - np.array(dipoles[2::2])) / (2.0 * STEP)
        atoms.arrays["born"] = scale * slopes.reshape(len(atoms), 9)
        atoms.info["dipole"] = scale * dipoles[0]
    return structures


def test_scores_against_finite_differences_of_the_dipole():
    scores = score_born_charges(model(), labelled(), "born")
    assert scores.order == "displacement_rows"
    assert "rotation rule" in scores.reason
    for agreement in (*scores.born_charges.values(), scores.dipole):
        assert agreement.rmse < 1e-6
        assert (agreement.slope, agreement.r_squared) == pytest.approx((1.0, 1.0), abs=1e-5)
    assert scores.sum_rule.largest < 1e-10
    counts = {name: found.count for name, found in scores.born_charges.items()}
    assert counts == {
        **{"all": 90, "isotropic": 10, "off-diagonal": 60},
        **{"H": 54, "H isotropic": 6, "O": 36, "O isotropic": 4},
    }
    assert scores.dipole.count == 3  # of the molecule alone
    assert (scores.num_structures, scores.num_charged) == (2, 1)


def test_scale_and_sum_rule_of_labels_are_told_and_not_fitted():
    scores = score_born_charges(model(), labelled(-0.5), "born")
    for agreement in (*scores.born_charges.values(), scores.dipole):
        assert agreement.slope == pytest.approx(-2.0, abs=1e-5)
        assert agreement.pearson_squared == pytest.approx(1.0, abs=1e-5)
        assert agreement.r_squared < 0.0
    # -0.5 Q is there, Q expected: 1.5 e on the diagonals
    assert scores.sum_rule_of_labels.largest == pytest.approx(1.65, abs=1e-6)
    assert scores.sum_rule_of_labels.rms == pytest.approx(1.65 / np.sqrt(3.0), abs=1e-6)


def test_the_order_of_the_indices_is_found_or_asked_for():
    molecule, crystal = (atoms.copy() for atoms in labelled())
    rows = molecule.arrays["born"].reshape(-1, 3, 3)
    found = read_born_charges([molecule], "born")
    np.testing.assert_array_equal(found.charges[0], rows.swapaxes(1, 2))
    molecule.arrays["born"] = rows.swapaxes(1, 2).reshape(-1, 9)
    assert read_born_charges([molecule], "born").order == "dipole_rows"
    with pytest.raises(DataError, match="open in all directions, found none; say what the rows"):
        read_born_charges([crystal], "born")
    given = read_born_charges([crystal], "born", order="displacement_rows")
    assert (given.order, given.reason) == ("displacement_rows", "as given")
    molecule.arrays["born"] = np.random.default_rng(0).normal(size=(5, 9))
    with pytest.raises(DataError, match="neither order of the indices fulfils the rotation rule"):
        read_born_charges([molecule], "born")
    crystal.arrays["born"] = np.tile(np.eye(3).ravel(), (5, 1))
    assert "symmetric" in read_born_charges([crystal], "born").reason


def test_labels_that_cannot_be_used():
    atoms = labelled()[0].copy()
    unlabelled = molecule()
    assert read_born_charges([unlabelled, atoms], "born").charges[0] is None
    with pytest.raises(DataError, match=r"no structure has the array 'borm'; did you mean 'born'"):
        score_born_charges(model(), [atoms], "borm")
    with pytest.raises(ValueError, match="born_charges_order: expected one of auto, dipole_rows"):
        score_born_charges(model(), [atoms], "born", order="columns")
    atoms.arrays["born"] = atoms.arrays["born"][:, :6]
    with pytest.raises(DataError, match=r"structure 0, key 'born'.* \(5, 6\), expected 9 numbers"):
        score_born_charges(model(), [atoms], "born")
    atoms.arrays["born"] = np.full((5, 9), np.nan)
    with pytest.raises(DataError, match="found NaN or infinity"):
        score_born_charges(model(), [atoms], "born")
    with pytest.raises(ValueError, match=r"expected a model with charges, found .* MACE"):
        evaluate_file(tiny_model("MACE"), "nowhere.xyz", born_charges="born")


def test_structures_without_dipoles_have_no_score_of_them():
    atoms = labelled()[0].copy()
    del atoms.info["dipole"]
    assert score_born_charges(model(), [atoms], "born").dipole is None
    (response,) = predict_response(model(), [atoms])
    atoms.arrays["born"] = response.born_charges.reshape(-1, 9)
    assert score_born_charges(model(), [atoms], "born").born_charges["all"].rmse < 1e-12
