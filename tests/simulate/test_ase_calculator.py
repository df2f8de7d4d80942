"""The ASE calculator agrees with predictions, notices changes, and survives bad structures."""

from __future__ import annotations

import pickle
from pathlib import Path

import ase
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.stress import voigt_6_to_full_3x3_stress
from compilations import compilations
from tiny_models import (
    assert_close,
    molecule,
    periodic,
    slab,
    tiny_model,
)

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import BoundaryError
from mace_scf_jax.models import required_inputs
from mace_scf_jax.pytorch.verification.models import reference_settings
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.simulate import MACESCFCalculator, Model, energy_function

TRAINED = (
    Path(__file__).parents[1] / "data" / "reference" / "trained" / "local_charges_water_ions.npz"
)


@pytest.fixture
def atoms(model):
    atoms = molecule()
    atoms.calc = MACESCFCalculator(model)
    return atoms


def test_results_equal_a_prediction(model, atoms):
    expected = model.predict(molecule())
    assert_close(atoms.get_potential_energy(), expected["energy"], 1e-12)
    assert_close(atoms.get_potential_energy(force_consistent=True), expected["energy"], 1e-12)
    assert_close(atoms.get_forces(), expected["forces"], 1e-10)
    assert_close(atoms.get_dipole_moment(), expected["dipole"], 1e-10)
    assert_close(atoms.get_charges(), expected["multipoles"][:, 0], 1e-10)
    assert_close(atoms.calc.results["multipoles"], expected["multipoles"], 1e-10)


def test_stress_of_a_crystal_in_voigt_order(model):
    crystal = periodic()
    crystal.calc = MACESCFCalculator(model)
    stress = crystal.get_stress()
    assert stress.shape == (6,)
    expected = model.predict(periodic(), stress=True)["stress"]
    assert_close(voigt_6_to_full_3x3_stress(stress), expected, 1e-10)
    assert_close(crystal.get_stress(voigt=False), expected, 1e-10)
    assert "energy" in crystal.calc.results


@pytest.mark.parametrize("box", [None, pytest.param(40.0, marks=pytest.mark.slow)])
def test_a_molecule_has_no_stress(model, box):
    atoms = molecule()
    atoms.set_cell(None if box is None else [box] * 3)
    atoms.calc = MACESCFCalculator(model)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert "stress" not in model.predict(atoms, stress=True)
    energy_fn, prepare = energy_function(model)
    results = energy_fn.results(atoms.positions, prepare(atoms), stress=True)
    assert np.isnan(results.stress).all()
    assert np.isfinite(results.forces).all()


def test_a_dipole_is_there_where_it_means_something():
    local, split = tiny_model(), tiny_model("LocalSplitCharges")
    for model, in_plane in ((local, False), (split, True)):
        layer, crystal = slab(), periodic()
        of_layer, of_crystal = model.predict([layer, crystal], forces=False)
        layer.calc = crystal.calc = MACESCFCalculator(model)
        found = layer.get_dipole_moment()
        np.testing.assert_array_equal(np.isfinite(found), [in_plane, in_plane, True])
        np.testing.assert_allclose(found, of_layer["dipole"], rtol=1e-9, atol=1e-12)
        crystal.get_potential_energy()
        assert ("dipole" in crystal.calc.results) == in_plane
        assert ("dipole" in of_crystal) == in_plane


def test_a_change_of_the_field_is_noticed(model, atoms):
    free = atoms.copy()
    free.info.pop("external_field")
    without = model.predict(free)
    atoms.get_potential_energy()
    atoms.info["external_field"] = np.array([0.0, 0.2, 0.0])
    expected = without["energy"] + 0.2 * without["dipole"][1]
    assert_close(atoms.get_potential_energy(), expected, 1e-12)
    atoms.info["external_field"][1] = 0.3  # in place
    expected = without["energy"] + 0.3 * without["dipole"][1]
    assert_close(atoms.get_potential_energy(), expected, 1e-12)
    del atoms.info["external_field"]
    assert_close(atoms.get_potential_energy(), without["energy"], 1e-12)


def test_nothing_is_recomputed_without_a_change(atoms, monkeypatch):
    energy = atoms.get_potential_energy()

    def recompute(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(atoms.calc, "calculate", recompute)
    assert atoms.get_potential_energy() == energy
    atoms.get_forces()
    atoms.positions[0, 0] += 1e-3
    with pytest.raises(AssertionError, match="computed again"):
        atoms.get_potential_energy()


def test_small_moves_compile_nothing_new(atoms):
    atoms.get_forces()
    rng = np.random.default_rng(0)
    energies = set()
    with compilations() as compiled:
        for _ in range(10):
            atoms.positions += rng.normal(scale=0.01, size=(5, 3))
            energies.add(atoms.get_potential_energy())
            atoms.get_forces()
    assert len(energies) == 10
    assert compiled == []


@pytest.mark.slow
def test_a_thousand_steps_of_a_liquid_compile_nothing_new():
    """Real weights in a small box: the numbers of neighbours go up and down as the atoms move."""
    file = read_reference_file(TRAINED)
    settings = reference_settings(file.meta)
    model = Model(settings, import_parameters(file.state, settings))
    rng = np.random.default_rng(0)
    corners = 3.1 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    water = ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    liquid = ase.Atoms(cell=[6.2, 6.2, 6.2], pbc=True)
    for corner in corners:
        water.rotate(360 * rng.random(), rng.normal(size=3))
        liquid += ase.Atoms(water.numbers, water.positions + corner)
    liquid.calc = MACESCFCalculator(model)
    bath = {"temperature_K": 300, "friction": 0.02 / units.fs, "rng": rng, "fixcm": False}
    dynamics = Langevin(liquid, 0.5 * units.fs, **bath)
    counts = set()
    dynamics.attach(lambda: counts.add(model.prepare(from_atoms(liquid)).num_edges), interval=50)
    dynamics.run(1)
    with compilations() as compiled:
        dynamics.run(1000)
    assert liquid.get_temperature() < 1000
    assert len(counts) > 5
    assert compiled == []


def test_a_cell_that_breathes_compiles_a_handful_of_times(model, monkeypatch):
    """As ASE does at constant pressure: forces and stress in every step, of a cell that is new.

    The volume grows and shrinks by a quarter: other reciprocal vectors, other neighbours.
    """
    crystal = periodic()
    crystal.calc = MACESCFCalculator(model)
    crystal.get_stress()
    cell, rng = crystal.cell.array.copy(), np.random.default_rng(0)
    calculations, calculate = [], crystal.calc.calculate
    monkeypatch.setattr(
        crystal.calc, "calculate", lambda *wanted: (calculations.append(wanted), calculate(*wanted))
    )
    kvectors, neighbours = set(), set()
    with compilations() as compiled:
        for phase in np.linspace(0.0, 2.0 * np.pi, 61)[1:]:
            crystal.set_cell((1.0 + 0.08 * np.sin(phase)) * cell, scale_atoms=True)
            crystal.positions += rng.normal(scale=0.01, size=(5, 3))
            crystal.get_forces()
            crystal.get_stress()
            prepared = model.prepare(from_atoms(crystal))
            kvectors.add(prepared.num_kvectors)
            neighbours.add(prepared.neighbour_counts().max())
    assert len(calculations) == 60, "forces come with the stress"
    assert max(kvectors) >= 1.5 * min(kvectors)
    assert max(neighbours) >= 1.2 * min(neighbours)
    assert len(compiled) <= 1


def test_sizes_only_grow(model, atoms):
    atoms.get_forces()
    spread = atoms.copy()
    spread.positions *= 1.5  # fewer neighbours
    spread.calc = atoms.calc
    with compilations() as compiled:
        spread.get_forces()
    assert compiled == []
    assert_close(spread.get_forces(), model.predict(spread)["forces"], 1e-9)


@pytest.mark.slow
def test_every_change_is_noticed(model):
    """Along a path on which the list is renewed, and after changes of all that is prepared."""
    atoms, rng = molecule(), np.random.default_rng(0)
    atoms.calc = MACESCFCalculator(model)

    def check():
        expected = model.predict(atoms, forces=False)
        np.testing.assert_allclose(
            atoms.get_potential_energy(), expected["energy"], rtol=1e-12, err_msg=str(atoms)
        )

    for _ in range(8):
        atoms.positions += rng.normal(scale=0.1, size=(5, 3))
        check()
    atoms.positions[3] += [11.0, 3.0, -9.0]
    check()  # neighbours are lost
    atoms.positions[3] += [9.0, 0.0, 0.0]
    check()  # the box of an open structure follows its extent
    atoms.positions = periodic().positions
    atoms.set_cell(periodic().cell)
    check()
    atoms.pbc = True
    check()
    atoms.set_cell(1.05 * atoms.cell, scale_atoms=True)
    check()
    atoms.symbols[0] = "H"
    check()
    atoms.info["total_charge"] = 2.0
    check()
    atoms.info["external_field"] = [0.0, 0.0, 0.1]
    atoms.positions += 0.01
    check()


def test_inputs_of_the_atoms_are_noticed():
    model = tiny_model("MACEQEq")
    atoms = molecule()
    atoms.calc = MACESCFCalculator(model)
    for value in (25.0, 26.0):
        for name in required_inputs(model.settings):
            atoms.arrays[name] = np.full(len(atoms), value)
        expected = model.predict(atoms, forces=False)["energy"]
        np.testing.assert_allclose(atoms.get_potential_energy(), expected, rtol=1e-12)


@pytest.mark.slow
def test_structures_of_other_sizes(model):
    """They share arrays of similar size, and leave those of small ones alone."""
    calculator, water = MACESCFCalculator(model), molecule()
    for size in (5, 6, 7, 8, 5):
        atoms = water.copy()
        far = [[0.0, -2.0 - number, 0.0] for number in range(size - 5)]
        atoms.extend(ase.Atoms("H" * len(far), far))
        expected = model.predict(atoms, forces=False)
        atoms.calc = calculator
        np.testing.assert_allclose(atoms.get_potential_energy(), expected["energy"], rtol=1e-12)
        assert atoms.get_charges().shape == (size,)
        assert calculator.evaluator.num_padded_atoms == (5 if size == 5 else 8)


def test_a_small_structure_after_a_large_one_has_small_arrays(model):
    """And nothing is compiled on the way back to what there was before."""
    calculator, small = MACESCFCalculator(model), molecule()
    large = periodic() * (2, 2, 1)
    for atoms in (large, small):
        atoms.calc = calculator
        atoms.get_forces()
    assert calculator.evaluator.num_padded_atoms < 2 * len(small)
    with compilations() as compiled:
        for atoms in (large, small):
            atoms.rattle(1e-3)
            expected = model.predict(atoms, forces=False)["energy"]
            assert_close(atoms.get_potential_energy(), expected, 1e-12)
    assert not [name for name in compiled if "follow" in name]


def test_atoms_that_were_denser_have_small_arrays_again(model):
    """The same atoms, and nothing is compiled on the way back and forth."""
    crystal, calculator = periodic(), MACESCFCalculator(model)
    loose, dense = crystal.cell.array.copy(), 0.6 * crystal.cell.array

    def neighbours_at(cell) -> int:
        crystal.set_cell(cell, scale_atoms=True)
        crystal.calc = calculator
        assert_close(crystal.get_forces(), model.predict(crystal)["forces"], 1e-9)
        return calculator.evaluator._neighbours.sizes.neighbours_per_atom

    first, more = neighbours_at(loose), neighbours_at(dense)
    assert more > 3 * first
    with compilations() as compiled:
        assert neighbours_at(loose) == first
        assert neighbours_at(dense) == more
    assert not [name for name in compiled if "follow" in name]


def test_a_copy_by_pickle_goes_on(model, atoms):
    energy = atoms.get_potential_energy()
    copied = pickle.loads(pickle.dumps(atoms))
    assert copied.get_potential_energy() == energy
    assert copied.calc.check_state(copied) == []
    copied.positions[0] += 0.1
    assert_close(copied.get_forces(), model.predict(copied)["forces"], 1e-10)


def test_bad_structures_are_refused_and_good_ones_still_work(model, atoms):
    energy = atoms.get_potential_energy()
    gold = atoms.copy()
    gold.symbols[0] = "Au"
    gold.calc = atoms.calc
    with pytest.raises(DataError, match="found element Au, unknown to the model"):
        gold.get_potential_energy()
    assert_close(atoms.get_potential_energy(), energy, 1e-14)
    double = atoms.copy()
    double.positions[1] = double.positions[0]
    double.calc = atoms.calc
    with pytest.raises(DataError, match="found atoms 0 and 1 at the same position"):
        double.get_forces()
    double.positions[1] = np.nan
    with pytest.raises(DataError, match="found NaN or infinity among the positions"):
        double.get_forces()
    with pytest.raises(DataError, match="found no atoms"):
        atoms.calc.calculate(ase.Atoms())
    assert_close(atoms.get_potential_energy(), energy, 1e-14)
    wire = atoms.copy()
    wire.pbc = (False, False, True)
    wire.calc = atoms.calc
    with pytest.raises(BoundaryError, match="found pbc FFT, incompatible with"):
        wire.get_forces()
    with pytest.raises(BoundaryError, match="found pbc FFT, incompatible with"):
        wire.get_forces()  # no stale results
    assert_close(atoms.get_potential_energy(), energy, 1e-14)


def test_a_model_file_will_do_and_charges_need_a_charged_model(tmp_path):
    plain = tiny_model("MACE")
    plain.save(tmp_path / "mace.model")
    crystal = periodic()
    crystal.calc = MACESCFCalculator(tmp_path / "mace.model")
    assert_close(crystal.get_forces(), plain.predict(periodic())["forces"], 1e-10)
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_charges()
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_dipole_moment()


@pytest.mark.slow
def test_a_polarizability_is_offered_where_the_model_has_one(model):
    atoms, split_charges = molecule(), tiny_model("LocalSplitCharges")
    atoms.calc = MACESCFCalculator(split_charges)
    found = atoms.calc.get_property("polarizability", atoms)
    expected = split_charges.predict(molecule(), forces=False)["polarizability"]
    assert_close(found, expected, 1e-12)
    atoms.calc = MACESCFCalculator(model)
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("polarizability", atoms)
