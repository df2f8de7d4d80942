"""Energies of elements by regression and from compounds: reference numbers, and bad input."""

from __future__ import annotations

import logging

import ase
import numpy as np
import pytest
from ase.data import atomic_numbers

from mace_scf_jax.data.atomic_energies import atomic_energies
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reference_energies import (
    Compounds,
    Regression,
    reference_energies,
    reference_method,
)
from mace_scf_jax.options import ConfigurationError

from .builders import configuration

TRUE = {"H": -13.5, "O": -432.5, "Ti": -1604.6}
FORMULAS = ["TiO2", "Ti4O8", "Ti2O3", "H2O", "O2", "TiH2", "H4O2", "O3"]


def samples(formulas=FORMULAS, elements=("H", "O", "Ti"), noise=0.0):
    """Counts, energies per composition from `TRUE`, and atomic numbers."""
    counts = np.array([[ase.Atoms(f).symbols.count(e) for e in elements] for f in formulas])
    energies = counts @ [TRUE[element] for element in elements]
    energies = energies + noise * np.random.default_rng(0).normal(size=len(formulas))
    return counts, energies, [atomic_numbers[element] for element in elements]


def fit(method, **data):
    counts, energies, elements = samples(**data)
    return reference_energies(counts, energies, elements=elements, method=method)


def energies_of(found):
    return {ase.data.chemical_symbols[number]: value for number, value in found.energies.items()}


def test_regression_finds_the_energies_that_sums_were_made_of():
    found = fit(Regression())
    assert energies_of(found) == pytest.approx(TRUE, rel=1e-12)
    assert (found.rank, found.samples, found.total) == (3, 8, 8)
    assert len(found.singular_values) == 3
    assert found.rmse < 1e-10


def test_regression_is_least_squares_of_total_energies():
    counts, energies, _ = samples(noise=1.0)
    found = fit(Regression(fixed={"O": -430.0}), noise=1.0)
    rest, columns = energies - counts[:, 1] * -430.0, counts[:, [0, 2]]
    expected = np.linalg.solve(columns.T @ columns, columns.T @ rest)
    np.testing.assert_allclose([found.energies[1], found.energies[22]], expected, rtol=1e-11)
    assert found.energies[8] == -430.0
    assert found.fixed == (8,)
    residual = np.sum((columns @ expected - rest) ** 2)
    assert found.residual_sum_of_squares == pytest.approx(residual, rel=1e-9)
    assert found.rmse == pytest.approx(np.sqrt(residual / 8), rel=1e-9)


def test_a_subset_is_drawn_by_its_seed():
    few = Regression(subset_size=5, seed=3)
    assert len(few.draw(8)) == len(set(few.draw(8))) == 5
    assert few.draw(8).tolist() == few.draw(8).tolist()
    assert any(
        few.draw(8).tolist() != Regression(subset_size=5, seed=s).draw(8).tolist() for s in range(5)
    )
    assert len(Regression(subset_fraction=0.3).draw(8)) == 3
    assert Regression(subset_size=100).draw(4).tolist() == [0, 1, 2, 3]
    drawn = np.zeros(8)
    for seed in range(400):
        drawn[Regression(subset_size=2, seed=seed).draw(8)] += 1
    assert np.all(np.abs(drawn - 100) < 45), "each of 8 is drawn 2 times in 8: 100 ± 8.7"


def test_a_subset_without_an_element_is_refused():
    formulas = ["H2", "O2", *9 * ["H2O"], "TiO2"]
    outside = next(s for s in range(50) if 11 not in Regression(subset_size=6, seed=s).draw(12))
    with pytest.raises(DataError, match=r"the subset that was drawn holds no Ti, .* `fixed`"):
        fit(Regression(subset_size=6, seed=outside), formulas=formulas)


def test_elements_that_do_not_occur_are_dropped():
    found = fit(Regression(), formulas=["O2", "H2O", "H2"])
    assert energies_of(found) == pytest.approx({"H": -13.5, "O": -432.5}, rel=1e-12)


def test_undetermined_energies_ask_for_fixed_ones():
    with pytest.raises(
        DataError, match=r"1 independent equations for .* H, O, expected 2.*fixed: \{O: …\}"
    ):
        fit(Regression(), formulas=["H2O", "H4O2"])
    found = fit(Regression(fixed={"O": -432.5}), formulas=["H2O", "H4O2"])
    assert found.energies[1] == pytest.approx(-13.5, rel=1e-12)
    with pytest.raises(DataError, match=r"1 independent equations.*or further compounds"):
        fit(Compounds(compounds=["H2O"]), formulas=["H2O", "H4O2"])


def test_compounds_are_reproduced_at_their_lowest_energy_per_formula_unit():
    counts, energies, elements = samples()
    energies[1] -= 0.4  # Ti4O8: 0.1 eV lower per TiO2
    method = Compounds(compounds=["Ti2O4", {"O": 2, "Ti": 0}, "H2"], fixed={"H": -13.5})
    with pytest.raises(DataError, match=r"no structure of the composition H .*occur: TiO2, Ti2O3"):
        reference_energies(counts, energies, elements=elements, method=method)
    method = Compounds(compounds=["Ti2O4", {"O": 2, "Ti": 0}, "H2O"])
    found = reference_energies(counts, energies, elements=elements, method=method)
    expected = TRUE | {"Ti": TRUE["Ti"] - 0.1}
    assert energies_of(found) == pytest.approx(expected, rel=1e-12)
    titania = found.compounds[0]
    assert (titania.compound, titania.sample, titania.candidates) == ("TiO2", 1, 2)
    assert titania.energy == pytest.approx(energies[1] / 4)
    assert found.samples == 3
    assert "TiO2 (2 structures, lowest" in found.describe()


def test_elements_without_a_compound_are_refused():
    with pytest.raises(DataError, match="none of the compounds has Ti"):
        fit(Compounds(compounds=["H2O", "O2"]))
    found = fit(Compounds(compounds=["H2O", "O2"], fixed={"Ti": -1.0}))
    assert energies_of(found) == pytest.approx(TRUE | {"Ti": -1.0}, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "ridge"}, "unknown method 'ridge'"),
        ({"method": "regression", "subset_sise": 3}, "subset_sise.*did you mean"),
        ({"method": "regression", "subset_size": 3, "subset_fraction": 0.1}, "found both"),
        ({"method": "regression", "subset_fraction": 1.5}, "at most 1"),
        ({"method": "regression", "subset_size": 0}, "at least 1"),
        ({"method": "regression", "fixed": {"Xq": 1.0}}, "found 'Xq'"),
        ({"method": "regression", "fixed": 3.0}, "expected {element: energy}, found 3.0"),
        ({"method": "compounds"}, "'compounds' is required"),
        ({"method": "compounds", "compounds": []}, "compounds"),
        ({"method": "compounds", "compounds": ["TiO2", "Ti3O6"]}, "TiO2 twice"),
        ({"method": "compounds", "compounds": ["TiO2", {"O": 2, "Ti": 1}]}, "TiO2 twice"),
        ({"method": "compounds", "compounds": ["Tio2"]}, "found 'Tio2', expected a formula"),
        ({"method": "compounds", "compounds": [""]}, "found '', expected a formula"),
        ({"method": "compounds", "compounds": [{"Ti": -1, "O": 2}]}, "expected a formula"),
        ({"method": "compounds", "compounds": [{"Ti": 0}]}, "expected a formula"),
        ({"method": "compounds", "compounds": ["O2"], "subset_size": 3}, "subset_size"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        reference_method(values)


def test_nothing_to_fit_is_refused():
    with pytest.raises(DataError, match="nothing is left to fit"):
        fit(Regression(fixed={"H": 0, "O": 0}), formulas=["H2O"])
    with pytest.raises(DataError, match="no structure with an energy"):
        reference_energies(np.zeros((0, 1), int), np.zeros(0), elements=[1], method=Regression())


def molecule(formula: str, energy: float | None):
    atoms = ase.Atoms(formula)
    atoms.positions[:, 0] = np.arange(len(atoms))
    if energy is not None:
        atoms.info["REF_energy"] = energy
    return configuration(atoms)


@pytest.mark.parametrize(
    "setting",
    [
        {"method": "compounds", "compounds": ["H2O", "O2"]},
        "{'method': 'compounds', 'compounds': ['H2O', 'O2']}",
        Compounds(compounds=["H2O", "O2"]),
        {"method": "regression", "fixed": {8: -432.5}, "subset_size": 2},
    ],
)
def test_setting_of_a_training(setting, caplog):
    train = Catalogue.of(
        [
            molecule("OH2", -459.5),
            molecule("O4H8", -1838.0),
            molecule("O3", -1297.5),
            molecule("H2", None),
        ]
    )
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        found = atomic_energies(setting, elements=(1, 8), train=train)
    np.testing.assert_allclose(found, [-13.5, -432.5], rtol=1e-12)
    assert "RMSE" in caplog.text
    with pytest.raises(DataError, match=r"atomic energies \(\w+\): found none for Ti"):
        atomic_energies(setting, elements=(1, 8, 22), train=train)


def test_setting_without_solution_names_the_option():
    train = Catalogue.of([molecule("OH2", -459.5)])
    with pytest.raises(DataError, match="E0s, method regression: found 1 independent"):
        atomic_energies({"method": "regression"}, elements=(1, 8), train=train)
