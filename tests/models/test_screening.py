"""Latent charges: screening by electrons, and forces in a field that add up."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from tiny_models import assert_close, molecule, periodic, tiny_model

from mace_scf_jax.predict.surplus import FieldWarning, SurplusChargeWarning
from mace_scf_jax.simulate import Model, predict_response

EPS_INFTY = 2.25
"""Its root is 1.5."""
FIELD = np.array([0.05, -0.02, 0.1])
STEP = 1e-4
FAMILIES = ["LocalCharges", pytest.param("LocalSplitCharges", marks=pytest.mark.slow)]

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind.__module__}.{kind.__name__}")
    for kind in (FieldWarning, SurplusChargeWarning)
]


@functools.cache
def model(family: str, *, eps_infty: float = EPS_INFTY, keep_neutral: bool = False) -> Model:
    return tiny_model(family).using(eps_infty=eps_infty, keep_neutral=keep_neutral)


def cluster(*, charge: float = 0.0, field: np.ndarray = FIELD, shift: float = 0.0):
    atoms = molecule()
    atoms.positions += shift
    atoms.info.update(total_charge=charge, external_field=field)
    return atoms


def slope(predict, moved) -> float:
    upper, lower = (predict(moved(step))["energy"] for step in (STEP, -STEP))
    return (upper - lower) / (2.0 * STEP)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_acts_on_the_dipole_that_is_reported(family):
    plain, screened = model(family, eps_infty=1.0), model(family)
    at_rest = cluster(field=np.zeros(3))
    one, other = plain.predict(at_rest), screened.predict(at_rest)
    for name in ("energy", "electrostatic_energy", "multipoles", "charges", "total_charge"):
        assert_close(other[name], one[name], 1e-14, name)
    assert_close(other["dipole"], 1.5 * one["dipole"], 1e-12)
    in_field, response = screened.predict(cluster()), predict_response(screened, cluster())
    assert_close(in_field["energy"] - other["energy"], FIELD @ other["dipole"], 1e-9)
    expected = other["forces"] - np.einsum("a,iab->ib", FIELD, response.born_charges)
    assert_close(in_field["forces"], expected, 1e-10)
    unscreened = predict_response(plain, cluster()).born_charges
    assert_close(response.born_charges, 1.5 * unscreened, 1e-12)


def test_born_charges_of_crystals_are_screened_alike():
    one, other = (
        predict_response(model("LocalCharges", eps_infty=eps), periodic()).born_charges
        for eps in (1.0, EPS_INFTY)
    )
    assert_close(other, 1.5 * one, 1e-12)


def test_multipoles_that_are_solved_for_answer_to_the_field_on_the_dipole():
    screened = model("MACEQEq")
    direction = np.array([0.3, -0.8, 0.5])
    found = slope(
        lambda atoms: screened.predict(atoms, forces=False),
        lambda step: cluster(field=FIELD + step * direction),
    )
    response = predict_response(screened, cluster())
    assert found == pytest.approx(direction @ response.dipole, rel=1e-7)
    at_same_multipoles = predict_response(
        model("MACEQEq", eps_infty=1.0), cluster(field=1.5 * FIELD)
    )
    assert_close(response.polarizability, 2.25 * at_same_multipoles.polarizability, 1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_forces_in_a_field_add_up_to_those_on_the_total_charge(family, charge):
    plain, neutral = model(family), model(family, keep_neutral=True)
    structures = [cluster(charge=charge, shift=shift) for shift in (0.0, 20.0)]
    before, (found, moved) = plain.predict(structures[0]), neutral.predict(structures)
    assert np.max(np.abs(before["forces"].sum(axis=0) + charge * FIELD)) > 1e-3
    assert_close(found["forces"].sum(axis=0) + charge * FIELD + 1.0, np.ones(3), 1e-9)
    assert_close(moved["forces"], found["forces"], 1e-8)
    assert_close(found["dipole"], before["dipole"], 1e-14)
    one, other = (predict_response(it, structures[0]) for it in (plain, neutral))
    assert_close(other.born_charges, one.born_charges, 1e-14)

    def displaced(step: float):
        atoms = structures[0].copy()
        atoms.positions[1, 2] += step
        return atoms

    expected = -slope(lambda atoms: neutral.predict(atoms, forces=False), displaced)
    assert found["forces"][1, 2] == pytest.approx(expected, rel=1e-6)


def test_settings_are_checked_and_stored():
    with pytest.raises(ValueError, match="eps_infty must be positive and finite, found 0"):
        tiny_model().using(eps_infty=0.0)
    with pytest.raises(ValueError, match="eps_infty: expected a model with electrostatics"):
        tiny_model("MACE").using(eps_infty=2.0)
    stored = model("LocalCharges", keep_neutral=True).settings.to_dict()
    assert stored["electrostatics"]["eps_infty"] == EPS_INFTY
    assert stored["electrostatics"]["keep_neutral"]
