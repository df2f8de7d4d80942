from __future__ import annotations

import json
import logging
from pathlib import Path

import ase
import numpy as np
import pytest

from mace_scf_jax.data.atomic_energies import atomic_energies
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError

from .builders import WATER_IONS, configuration, read_configurations


def molecule(formula: str, energy: float | None, **info) -> Configuration:
    atoms = ase.Atoms(formula)
    atoms.positions[:, 0] = np.arange(len(atoms))
    atoms.info.update(info)
    if energy is not None:
        atoms.info["REF_energy"] = energy
    return configuration(atoms)


TRAIN = [
    molecule("OH2", -2064.0),
    molecule("OH", -2051.0),
    molecule("H2", None),
    molecule("H5", 1e9, config_energy_weight=0.0),
]


def test_average_is_a_fit_to_the_configurations_with_energies() -> None:
    found = atomic_energies("Average", elements=(1, 8), train=Catalogue.of(TRAIN))
    np.testing.assert_allclose(found, [-13.0, -2038.0], rtol=1e-12)


def test_average_on_the_example_data_equals_an_independent_fit() -> None:
    train = read_configurations(WATER_IONS)
    elements = (1, 8, 11, 17)
    found = atomic_energies("average", elements=elements, train=Catalogue.of(train))
    counts = np.array([[(e.atomic_numbers == z).sum() for z in elements] for e in train], float)
    energies = np.array([e.values["energy"] for e in train])
    normal = np.linalg.solve(counts.T @ counts, counts.T @ energies)
    np.testing.assert_allclose(found, normal, rtol=1e-9)


def test_undetermined_average_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    train = [molecule("OH2", -10.0), molecule("O2H4", -20.0)]
    with caplog.at_level(logging.WARNING, logger="mace_scf_jax"):
        found = atomic_energies("average", elements=(1, 8), train=Catalogue.of(train))
    assert 2 * found[0] + found[1] == pytest.approx(-10.0, rel=1e-12)
    assert "do not determine the energies of its 2 elements one by one (rank 1)" in caplog.text


def test_average_without_energies_is_refused() -> None:
    with pytest.raises(DataError, match="no training configuration with an energy"):
        atomic_energies("average", elements=(1,), train=Catalogue.of(TRAIN[2:]))


@pytest.mark.parametrize(
    "setting",
    [{1: -13.5, 8: -2038.0}, {"1": -13.5, "8": -2038}, {"H": -13.5, "O": -2038.0, "C": -1.0}],
)
def test_mappings_by_number_or_symbol(setting: dict, tmp_path: Path) -> None:
    file = tmp_path / "E0s.json"
    file.write_text(json.dumps(setting))
    for given in (setting, repr(setting), file, str(file)):
        found = atomic_energies(given, elements=(1, 8), train=Catalogue.of([]))
        assert found.tolist() == [-13.5, -2038.0]


def test_isolated_atoms_win_over_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    free = [
        molecule("H", -13.0, config_type="IsolatedAtom"),
        molecule("H", -14.0, config_type="IsolatedAtom"),
        molecule("O", None, config_type="IsolatedAtom"),
    ]
    assert Catalogue.of(free).isolated_atoms().all()
    with caplog.at_level(logging.WARNING, logger="mace_scf_jax"):
        found = atomic_energies(
            {"H": 1.0}, elements=(1, 8), train=Catalogue.of([]), isolated_atoms=Catalogue.of(free)
        )
    assert found.tolist() == [-13.5, 0.0]
    assert "isolated atom O has no energy" in caplog.text
    with pytest.raises(DataError, match=r"isolated atoms of the training file.*none for Na"):
        atomic_energies(
            {11: 1.0}, elements=(1, 11), train=Catalogue.of([]), isolated_atoms=Catalogue.of(free)
        )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (None, "found neither this option nor isolated atoms"),
        ("averaged", "found no mapping"),
        ("{1: -13.5", "found no mapping"),
        ("[1, 2]", r"found \[1, 2\], expected \{element: energy\}"),
        ("missing.json", "missing.json: cannot be read"),
        ({"Xx": 1.0}, "found 'Xx', expected an atomic number"),
        ({0: 1.0}, "found 0, expected an atomic number"),
        ({1: "low"}, "E0s, 1: found 'low', expected an energy"),
        ({1: float("nan")}, "found nan"),
        ({1: -13.5}, "found none for O"),
    ],
)
def test_unusable_settings_are_refused(setting: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        atomic_energies(setting, elements=(1, 8), train=Catalogue.of(TRAIN))
