"""Labels beside predictions: which entries, which units, which config types."""

import numpy as np
import pytest
from ase import Atoms

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.reports.comparison import compare
from mace_scf_jax.reports.parity import errors_by_type, parity

KEYS = KeySpecification.from_heads(
    {
        "x": {
            "info_keys": {"energy": "E", "dipole": "D", "total_charge": "Q"},
            "arrays_keys": {"forces": "F", "atomic_multipoles": "M"},
        }
    }
)
ENERGIES = {1: -10.0, 8: -2000.0}


def labelled(config_type: str, energy: float, **info):
    atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]], cell=[20, 20, 20])
    atoms.info |= {"E": energy, "Q": 0.0, "config_type": config_type, **info}
    atoms.arrays["F"] = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    atoms.arrays["M"] = np.array([[-0.4, 0.1, 0.0, 0.0], [0.4, 0.0, 0.0, 0.0]])
    return from_atoms(atoms, keys=KEYS)


def predicted(energy: float, shift: float = 0.0) -> dict:
    return {
        "energy": energy,
        "forces": np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]) + shift,
        "multipoles": np.array([[-0.4, 0.1, 0.0, 0.0], [0.4, 0.0, 0.0, 0.0]]) + shift,
        "dipole": np.array([1.0, 2.0, 3.0]),
        "total_charge": 0.1,
    }


@pytest.fixture
def comparisons():
    dipole = {"D": [1.0, 2.0, 3.5], "config_dipole_weight": [1.0, 0.0, 1.0]}
    members = [labelled("a", -2011.0, **dipole), labelled("b", -2012.0)]
    predictions = [predicted(-2011.2), predicted(-2012.0, shift=0.3)]
    return {
        entry.quantity.title: entry
        for entry in compare(members, predictions, atomic_energies=ENERGIES)
    }


def test_energies_are_per_atom_and_without_isolated_atoms(comparisons):
    energy = comparisons["Energy less E0s"]
    np.testing.assert_allclose(energy.reference, [-0.5, -1.0])
    np.testing.assert_allclose(energy.prediction, [-0.6, -1.0])
    assert energy.mae == pytest.approx(0.05)


def test_entries_without_label_are_left_out(comparisons):
    assert set(comparisons) == {
        "Energy less E0s",
        "Forces",
        "Atomic charges",
        "Atomic dipoles",
        "Total dipole",
        "Total charge",
    }
    dipole = comparisons["Total dipole"]
    np.testing.assert_array_equal(dipole.reference, [1.0, 3.5])
    np.testing.assert_array_equal(dipole.config_type, ["a", "a"])


def test_multipoles_are_split_by_order(comparisons):
    assert len(comparisons["Atomic charges"].reference) == 4
    assert len(comparisons["Atomic dipoles"].reference) == 12
    np.testing.assert_allclose(comparisons["Atomic charges"].reference, [-0.4, 0.4] * 2)


def test_errors_of_one_config_type(comparisons):
    forces = comparisons["Forces"]
    assert forces.of("a").rmse == 0.0
    assert forces.of("b").rmse == pytest.approx(0.3)
    assert forces.rmse == pytest.approx(0.3 / np.sqrt(2))


def test_the_plots_show_each_property(comparisons):
    figure = parity(list(comparisons.values()))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(comparisons)
    forces = figure.axes[1]
    assert forces.get_xlim() == forces.get_ylim()
    assert forces.get_xlabel() == "reference / (eV/Å)"
    assert forces.texts[0].get_text() == "RMSE 212, MAE 150 meV/Å"
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.texts[0].get_window_extent().y0 >= axes.get_window_extent().y1
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["a", "b"]
    by_type = errors_by_type(list(comparisons.values()))
    assert [tick.get_text() for tick in by_type.axes[0].get_yticklabels()] == ["a", "b"]
    (errors,) = [line for line in by_type.axes[1].get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(errors.get_xdata(), [0.0, 300.0], atol=1e-9)


def test_round_off_is_neither_hidden_nor_magnified():
    exact = predicted(-2011.0) | {"total_charge": 9e-17}
    (charge,) = [
        entry
        for entry in compare([labelled("a", -2011.0)], [exact], atomic_energies=ENERGIES)
        if entry.quantity.title == "Total charge"
    ]
    assert parity([charge]).axes[0].texts[0].get_text() == "RMSE 9e-14, MAE 9e-14 me"
    assert errors_by_type([charge]).axes[0].get_xlim() == (0.0, 1.0)


def test_rare_config_types_share_a_colour():
    members = [labelled(f"type_{index}", -2011.0) for index in range(9)]
    predictions = [predicted(-2011.0) for _ in members]
    figure = parity(compare(members, predictions, atomic_energies=ENERGIES))
    names = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert len(names) == 7
    assert names[-1] == "other (3)"
