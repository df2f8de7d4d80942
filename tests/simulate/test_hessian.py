"""Hessians and learned features, as users of MACE's calculator ask for them."""

from __future__ import annotations

import numpy as np
import pytest
from ase.vibrations import VibrationsData
from tiny_models import (
    CHARGED_FAMILIES,
    assert_close,
    molecule,
    periodic,
    random_rotation,
    tiny_model,
)

from mace_scf_jax.models import FAMILIES
from mace_scf_jax.predict import Committee
from mace_scf_jax.simulate import CommitteeCalculator, MACESCFCalculator

STEP = 1e-4
QUICK = ("ScaleShiftMACE", "LocalCharges", "ChebyshevANN")
FEATURES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CHARGED_FAMILIES]


@pytest.mark.parametrize("family", ["ScaleShiftMACE", *SLOW])
@pytest.mark.parametrize("system", [molecule, pytest.param(periodic, marks=pytest.mark.slow)])
def test_a_hessian_is_the_derivative_of_forces(family, system):
    atoms = system()
    calculator = MACESCFCalculator(tiny_model(family))
    hessian = calculator.get_hessian(atoms)
    assert hessian.shape == (15, 5, 3)
    matrix = hessian.reshape(15, 15)
    np.testing.assert_array_equal(matrix, matrix.T)
    moved = atoms.copy()
    moved.calc = calculator
    rows = []
    for component in np.eye(15).reshape(15, 5, 3):
        by_sign = []
        for sign in (1.0, -1.0):
            moved.positions = atoms.positions + sign * STEP * component
            by_sign.append(moved.get_forces())
        rows.append((by_sign[1] - by_sign[0]) / (2.0 * STEP))
    assert_close(hessian, rows, 1e-6)
    moved.positions = atoms.positions
    moved.get_forces()
    assert_close(calculator.get_hessian(), hessian, 1e-12)
    assert len(VibrationsData.from_2d(atoms, matrix).get_energies()) == 15


@pytest.mark.parametrize("family", FEATURES)
def test_learned_features_turn_with_the_structure(family):
    atoms, rotation = molecule(), random_rotation(1)
    turned = molecule()
    turned.positions = turned.positions @ rotation.T
    calculator = MACESCFCalculator(tiny_model(family))
    invariants = calculator.get_descriptors(atoms)
    assert_close(calculator.get_descriptors(turned), invariants, 1e-10)
    everything = calculator.get_descriptors(atoms, invariants_only=False)
    others = everything[:, invariants.shape[1] :]
    assert_close(everything[:, : invariants.shape[1]], invariants, 1e-10)
    vectors = others.reshape(len(atoms), -1, 3)  # x, y, z of every channel
    expected = (vectors @ rotation.T).reshape(others.shape)
    found = calculator.get_descriptors(turned, invariants_only=False)
    assert_close(found[:, invariants.shape[1] :], expected, 1e-10)


def test_layers_can_be_chosen_and_members_answer_one_by_one():
    model = tiny_model("MACE", num_interactions=2, scalar_last_layer=True)
    committee = CommitteeCalculator(Committee((model, model)))
    atoms = molecule()
    both, again = committee.get_descriptors(atoms, invariants_only=False)
    np.testing.assert_array_equal(both, again)
    first = MACESCFCalculator(model).get_descriptors(atoms, False, num_layers=1)
    assert (first.shape, both.shape) == ((5, 2 + 6), (5, 2 + 6 + 2))
    assert_close(both[:, :8], first, 1e-12)
    with pytest.raises(ValueError, match="num_layers: expected -1 or 1 to 2, found 3"):
        committee.get_descriptors(atoms, num_layers=3)
    with pytest.raises(ValueError, match="MACESCFCalculator: expected a structure, found none"):
        MACESCFCalculator(model).get_hessian()
