from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.properties import PROPERTIES

from .builders import configuration, heads, labelled_atoms

ALL_KEYS = KeySpecification.from_heads(
    heads(
        {n: f"my_{n}" for n, p in PROPERTIES.items() if "info" in p.places},
        {n: f"my_{n}" for n, p in PROPERTIES.items() if p.places == ("arrays",)},
    )
)


def atoms_with(**values: object) -> ase.Atoms:
    """Two atoms with the given properties under the keys `my_<name>`."""
    atoms = ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]], cell=[30] * 3, pbc=True)
    atoms.info["config_dipole_weight"] = [1.0, 1.0, 1.0]
    for name, value in values.items():
        if "info" in PROPERTIES[name].places:
            atoms.info[f"my_{name}"] = value
        else:
            atoms.arrays[f"my_{name}"] = np.asarray(value)
    return atoms


VOIGT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
FULL = [[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("energy", -3, -3.0),
        ("energy", np.array([-3.5]), -3.5),
        ("forces", [[1, 2, 3], [4, 5, 6]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        ("stress", VOIGT, FULL),
        ("stress", np.ravel(FULL), FULL),
        ("stress", FULL, FULL),
        ("virials", VOIGT, FULL),
        ("dipole", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("polarizability", np.arange(9.0), np.arange(9.0).reshape(3, 3)),
        ("total_charge", -1, -1.0),
        ("fermi_level", -5.5, -5.5),
        ("external_field", [0, 0, 0.1], [0.0, 0.0, 0.1]),
        ("electrostatic_potentials", [0.5, 1.5], [0.5, 1.5]),
        ("electrostatic_potentials", [[0.5], [1.5]], [0.5, 1.5]),
        ("charges", [-2, 1], [-2.0, 1.0]),
        ("enegs", [4.0, 2.0], [4.0, 2.0]),
        ("hardness", [4.0, 2.0], [4.0, 2.0]),
        ("molID", [0.0, 7.0], [0, 7]),
        ("elec_temp", 300, 300.0),
        ("rho_fftn", np.ones((2, 3, 4, 5)), np.ones((2, 3, 4, 5))),
    ],
)
def test_every_property_is_read_in_its_shape(name: str, given: object, expected: object) -> None:
    found = configuration(atoms_with(**{name: given}), ALL_KEYS)
    np.testing.assert_array_equal(found.values[name], expected)
    assert found.values[name].shape == np.shape(expected)
    assert np.all(found.weights[name] == 1.0)
    assert found.present == {name}


def test_missing_and_unmapped_properties_are_zero_with_weight_zero() -> None:
    for keys in (ALL_KEYS, KeySpecification.from_heads(heads({"total_charge": "q"}, {}))):
        found = configuration(atoms_with(), keys, multipoles_max_l=1)
        shapes = {
            "energy": (),
            "forces": (2, 3),
            "stress": (3, 3),
            "virials": (3, 3),
            "dipole": (3,),
            "polarizability": (3, 3),
            "external_field": (3,),
            "atomic_multipoles": (2, 4),
            "molID": (2,),
        }
        for name, shape in shapes.items():
            assert found.values[name].shape == shape
        assert found.values["total_spin"] == 1.0
        assert not any(np.any(v) for name, v in found.values.items() if name != "total_spin")
        assert not any(np.any(weight) for weight in found.weights.values())
        assert found.weights["dipole"].shape == (3,)


@pytest.mark.parametrize(("max_l", "columns"), [(0, 1), (1, 4), (2, 9)])
def test_multipoles_beyond_the_highest_order_are_dropped(max_l: int, columns: int) -> None:
    given = np.arange(18.0).reshape(2, 9)
    found = configuration(atoms_with(atomic_multipoles=given), ALL_KEYS, multipoles_max_l=max_l)
    np.testing.assert_array_equal(found.values["atomic_multipoles"], given[:, :columns])


def test_one_dimensional_multipoles_are_charges() -> None:
    found = configuration(atoms_with(atomic_multipoles=[0.5, -0.5]), ALL_KEYS, multipoles_max_l=0)
    np.testing.assert_array_equal(found.values["atomic_multipoles"], [[0.5], [-0.5]])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("atomic_multipoles", np.ones((2, 3)), r"shape \(2, 3\).*at least 4 .*l = 1"),
        ("atomic_multipoles", [1.0, 2.0], "at least 4"),
        ("forces", [1.0, 2.0], r"shape \(2,\), expected 3 numbers per atom"),
        ("stress", [1.0, 2.0, 3.0], "6 numbers .* 9 numbers or a 3×3 matrix"),
        ("energy", [1.0, 2.0], "expected one number"),
        ("energy", "low", "found 'low', expected one number"),
        ("total_charge", True, "found True, expected one number"),
        ("dipole", [1.0, 2.0], r"expected 3 numbers \(x y z\)"),
        ("external_field", 0.1, "expected 3 numbers"),
        ("polarizability", VOIGT, "expected 9 numbers"),
        ("electrostatic_potentials", [1.0, 2.0, 3.0], "one number per atom, 2 atoms"),
        ("molID", [0.0, 0.5], "fractional"),
        ("rho_fftn", np.ones((3, 2, 2, 2)), "real and imaginary part"),
        ("energy", np.nan, "NaN or infinity"),
        ("forces", [[0, 0, 0], [0, np.inf, 0]], "NaN or infinity"),
        ("external_field", [0.0, 0.0, np.nan], "NaN or infinity"),
    ],
)
def test_wrong_values_are_refused_with_file_index_and_key(
    name: str, given: object, message: str
) -> None:
    where = rf"some\.xyz, configuration 2, key 'my_{name}' \({name}\)"
    with pytest.raises(DataError, match=f"{where}: .*{message}"):
        configuration(atoms_with(**{name: given}), ALL_KEYS)


def test_nan_beyond_the_multipoles_that_are_kept_is_refused_too() -> None:
    given = np.ones((2, 9))
    given[1, 8] = np.nan
    with pytest.raises(DataError, match="NaN"):
        configuration(atoms_with(atomic_multipoles=given), ALL_KEYS, multipoles_max_l=1)


def test_weights_of_properties_and_configurations() -> None:
    atoms = labelled_atoms(
        config_type="bulk",
        config_weight=3.0,
        config_energy_weight=0.5,
        config_atomic_multipoles_weight=2,
        config_stress_weight=7.0,
        config_dipole_weight=[1.0, 0.0, 2.5],
    )
    found = configuration(atoms, config_type_weights={"bulk": 2.0, "Default": 9.0})
    assert found.config_type == "bulk"
    assert found.config_weight == 6.0
    assert found.weights["energy"] == 0.5
    assert found.weights["atomic_multipoles"] == 2.0
    assert found.weights["forces"] == 1.0
    assert found.weights["stress"] == 0.0
    np.testing.assert_array_equal(found.weights["dipole"], [1.0, 0.0, 2.5])
    assert configuration(labelled_atoms()).config_weight == 1.0
    assert configuration(labelled_atoms(), config_type_weights={"bulk": 2.0}).config_weight == 1.0


def test_a_stress_without_a_period_does_not_count() -> None:
    weights = {}
    for pbc in ((False, False, False), (True, True, False), (True, True, True)):
        atoms = ase.Atoms("H", cell=[4.0, 4.0, 40.0], pbc=pbc)
        atoms.info.update(stress=VOIGT, config_stress_weight=2.0, total_charge=0.0)
        keys = KeySpecification.from_heads(
            heads({"total_charge": "total_charge", "stress": "stress"}, {})
        )
        weights[sum(pbc)] = float(from_atoms(atoms, keys=keys).weights["stress"])
    assert weights == {0: 0.0, 2: 2.0, 3: 2.0}


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"config_weight": -1.0}, "config_weight must be finite and not negative"),
        ({"config_weight": [1.0, 2.0]}, "config_weight must be one number"),
        ({"config_energy_weight": np.nan}, "config_energy_weight must be finite"),
        ({"config_forces_weight": "high"}, "config_forces_weight must be finite"),
        ({"config_dipole_weight": 1.0}, r"config_dipole_weight must be a 3-vector.*shape \(\)"),
        (
            {"config_dipole_weight": [1.0, 1.0]},
            r"config_dipole_weight must be a 3-vector.*shape \(2,\)",
        ),
        ({"config_dipole_weight": [1.0, 1.0, -1.0]}, "config_dipole_weight must be finite"),
    ],
)
def test_wrong_weights_are_refused(info: dict, message: str) -> None:
    with pytest.raises(DataError, match=rf"some\.xyz, configuration 2: {message}"):
        configuration(labelled_atoms(**info))


@pytest.mark.parametrize(
    ("pbc", "expected"),
    [("FFF", [1, 1, 1]), ("TTF", [0, 0, 1]), ("TTT", [0, 0, 0]), ("FTF", [0, 0, 1])],
)
def test_dipoles_weigh_nothing_along_periodic_directions(pbc: str, expected: list) -> None:
    atoms = labelled_atoms()
    del atoms.info["config_dipole_weight"]
    atoms.cell = [[9.0, 0, 0], [4.0, 9.0, 1e-9], [1.0, 1.0, 9.0]]
    atoms.pbc = [letter == "T" for letter in pbc]
    np.testing.assert_array_equal(configuration(atoms).weights["dipole"], expected)
    atoms.info["config_dipole_weight"] = [0.5, 1.0, 2.0]
    np.testing.assert_array_equal(configuration(atoms).weights["dipole"], [0.5, 1.0, 2.0])
    del atoms.info["REF_dipole"]
    assert not configuration(atoms).weights["dipole"].any()


@pytest.mark.parametrize("name", ["stress", "virials"])
def test_stress_of_what_has_no_period_weighs_nothing(name: str) -> None:
    atoms = atoms_with(**{name: FULL})
    atoms.pbc = False
    assert configuration(atoms, ALL_KEYS).weights[name] == 0.0
    atoms.pbc = [True, True, False]
    assert configuration(atoms, ALL_KEYS).weights[name] == 1.0


def test_calculator_results_are_labels_only_when_asked_for() -> None:
    keys = KeySpecification.from_heads(
        heads(
            {"total_charge": "total_charge", "energy": "energy", "stress": "stress"},
            {"forces": "forces"},
        )
    )
    atoms = ase.Atoms("H", cell=[3.0] * 3, pbc=True)
    forces = np.array([[1.0, 2.0, 3.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=forces, stress=np.array(VOIGT))
    found = configuration(atoms, keys)
    assert found.values["energy"] == -1.5
    np.testing.assert_array_equal(found.values["forces"], forces)
    np.testing.assert_array_equal(found.values["stress"], FULL)
    assert from_atoms(atoms, keys=keys).present == frozenset()


def test_prediction_reads_the_inputs_of_a_model() -> None:
    atoms = labelled_atoms(total_charge=-1, external_field=[0.0, 0.1, 0.0])
    atoms.arrays["charges"] = np.array([-2.0, 1.0, 1.0])
    found = from_atoms(atoms)
    assert found.present == {"total_charge", "fermi_level", "external_field", "charges"}
    assert found.values["total_charge"] == -1.0
    np.testing.assert_array_equal(found.values["external_field"], [0.0, 0.1, 0.0])
    np.testing.assert_array_equal(found.values["charges"], [-2.0, 1.0, 1.0])
    assert str(found.location) == "structure 0"


def test_atoms_are_not_moved_or_shared() -> None:
    atoms = labelled_atoms()
    atoms.positions += 100.0
    found = configuration(atoms)
    np.testing.assert_array_equal(found.positions, atoms.positions)
    found.positions[0] = 0.0
    assert np.all(atoms.positions[0] > 90.0)


def test_broken_structures_are_refused() -> None:
    atoms = labelled_atoms()
    atoms.positions[1, 2] = np.nan
    with pytest.raises(DataError, match=r"some\.xyz, configuration 2: found NaN .* positions"):
        configuration(atoms)
    with pytest.raises(DataError, match="found no atoms"):
        configuration(ase.Atoms())
    with pytest.raises(DataError, match=r"configuration 2: cell: found a zero vector"):
        configuration(ase.Atoms("H", pbc=True))
