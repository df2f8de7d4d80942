"""Self-consistent models in ASE: inputs, warm starts, non-convergence, restarts."""

from __future__ import annotations

import functools
import warnings

import ase.io
import numpy as np
import pytest
from compilations import compilations
from reference_models import TRAINED, reference_atoms, reference_model
from tiny_models import assert_close, tiny_model

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.models import DirectStep, SelfConsistency
from mace_scf_jax.models.families.fixed_point import response_slopes
from mace_scf_jax.scf import Anderson, LinearMixing, SolverStatus
from mace_scf_jax.simulate import (
    MACESCFCalculator,
    Model,
    NotConvergedError,
    NotConvergedWarning,
    WarmStart,
    evaluate_file,
)

TIGHT = SelfConsistency(Anderson(tolerance=1e-11, check_last_step=False))
"""So tight that energies agree to 1e-9 eV wherever the search starts; one method compiles faster
than the two of the default."""


def trained(scf):
    model = reference_model(TRAINED)
    return Model(model.settings, model.parameters, scf=scf)


MODEL = trained(TIGHT)


def cluster():
    return reference_atoms(TRAINED)[0]


def trajectory(length, seed=0, amplitude=0.003):
    """A smooth path of a cluster."""
    rng = np.random.default_rng(seed)
    atoms, velocity = cluster(), rng.normal(scale=amplitude, size=(2, len(cluster()), 3))
    for step in range(length):
        moved = atoms.copy()
        moved.info = dict(atoms.info)
        moved.positions += step * velocity[0] + 0.05 * step**2 * velocity[1]
        yield moved


def run(calculator, path):
    """Energies, and the numbers of evaluations that they took."""
    energies, evaluations = [], []
    for atoms in path:
        energies.append(calculator.get_potential_energy(atoms))
        evaluations.append(calculator.results["scf_evaluations"])
    return np.array(energies), np.array(evaluations)


def test_results_equal_a_prediction_and_say_how_well_it_is_solved():
    atoms, expected = cluster(), MODEL.predict(cluster())
    atoms.calc = MACESCFCalculator(MODEL)
    assert_close(atoms.get_potential_energy(), expected["energy"], 1e-12)
    assert_close(atoms.get_forces(), expected["forces"], 1e-9)
    results = atoms.calc.results
    for name in ("fermi_level", "multipoles", "electrostatic_potentials", "field_energy"):
        assert_close(results[name], expected[name], 1e-9, name)
    assert results["scf_status"] is SolverStatus.CONVERGED
    assert results["scf_residual"] < 1e-8
    history = results["convergence_history"]
    assert len(history) == results["scf_steps"] > 0
    assert history[-1] == results["scf_residual"]
    assert abs(sum(atoms.get_charges()) - atoms.info["total_charge"]) < 1e-8


@pytest.mark.slow
def test_warm_starts_save_evaluations_and_change_nothing(monkeypatch):
    monkeypatch.setattr(response_slopes, "MOST_UNKNOWNS", 0)  # as for large structures
    # settings of its own: functions that were compiled with the matrix are not used again
    model = trained(SelfConsistency(Anderson(tolerance=9e-12, check_last_step=False)))
    path = list(trajectory(12))
    calculator = MACESCFCalculator(model)
    cold_energies, cold = run(calculator, path)
    history = calculator.results["convergence_history"]
    assert history[0] > 100 * history[-1]
    latest, repeated = run(MACESCFCalculator(model, warm_start=WarmStart(num_geometries=1)), path)
    warm_energies, warm = run(MACESCFCalculator(model, warm_start=WarmStart()), path)
    assert len(set(cold_energies.round(6))) == len(path)
    np.testing.assert_allclose(warm_energies, cold_energies, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(latest, cold_energies, rtol=0.0, atol=1e-9)
    assert warm[3:].sum() < repeated[3:].sum()
    assert warm[3:].sum() <= 0.6 * cold[3:].sum()


@pytest.mark.slow
def test_affine_models_of_small_structures_take_two_evaluations():
    for warm_start in (None, WarmStart()):
        _, evaluations = run(MACESCFCalculator(MODEL, warm_start=warm_start), trajectory(6))
        np.testing.assert_array_equal(evaluations, 2)


def test_moving_atoms_compile_nothing_new():
    calculator = MACESCFCalculator(MODEL, warm_start=WarmStart(check_every=4))
    path = list(trajectory(10))
    run(calculator, path[:2])
    with compilations() as compiled:
        run(calculator, path[2:])
    assert compiled == []


MIXING = SelfConsistency(LinearMixing(max_steps=100, mixing=0.3, tolerance=1e-6))
"""Diverges where the charge is impossible."""


@pytest.fixture(scope="module")
def mixing():
    return trained(MIXING)


IMPOSSIBLE = r"multipoles not self-consistent \(diverged\) after \d+ steps, residual \S+ e, charge"


def impossible():
    atoms = cluster()
    atoms.info["total_charge"] = 60.0
    return atoms


def test_a_calculator_stays_usable_after_a_failure(mixing):
    atoms = cluster()
    atoms.calc = MACESCFCalculator(mixing, warm_start=WarmStart())
    energy = atoms.get_potential_energy()
    assert atoms.calc.results["scf_steps"] > 10
    bad = impossible()
    bad.calc = atoms.calc
    for _ in range(2):  # no stale results
        with pytest.raises(NotConvergedError, match=f"structure 0: {IMPOSSIBLE}"):
            bad.get_potential_energy()
    assert abs(atoms.get_potential_energy() - energy) < 1e-9

    atoms.calc.not_converged = "warn"
    with pytest.warns(NotConvergedWarning, match=IMPOSSIBLE):
        bad.get_potential_energy()
    assert atoms.calc.results["scf_status"] is SolverStatus.DIVERGED
    atoms.calc.not_converged = "ignore"
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        atoms.calc.reset()
        bad.get_potential_energy()


def test_files_say_which_structures_did_not_converge(tmp_path, mixing):
    for number, atoms in enumerate([cluster(), impossible()]):
        ase.io.write(tmp_path / f"{number}.xyz", atoms, format="extxyz")
    output = tmp_path / "out.xyz"
    evaluate = functools.partial(evaluate_file, mixing, output=output, forces=False)
    evaluate(tmp_path / "0.xyz", not_converged="raise")
    written = ase.io.read(output)
    assert written.info["MACE_scf_status"] == "converged"
    assert written.info["MACE_scf_residual"] < 1e-6
    assert written.arrays["MACE_electrostatic_potentials"].shape == (len(written),)
    output.unlink()
    with pytest.raises(NotConvergedError, match=rf"1\.xyz, configuration 0: {IMPOSSIBLE}"):
        evaluate(tmp_path / "1.xyz", not_converged="raise")
    assert not output.exists()
    with pytest.warns(NotConvergedWarning, match=rf"1\.xyz, configuration 0: {IMPOSSIBLE}"):
        evaluate(tmp_path / "1.xyz")
    assert ase.io.read(output).info["MACE_scf_status"] == "diverged"


def test_the_way_to_the_solution_is_written(tmp_path, mixing):
    ase.io.write(tmp_path / "in.xyz", cluster(), format="extxyz")
    output = tmp_path / "out.xyz"

    def written(model, history):
        evaluate_file(model, tmp_path / "in.xyz", output=output, forces=False, scf_history=history)
        return ase.io.read(output)

    atoms = written(mixing, "full_history")
    steps = int(atoms.info["MACE_scf_steps"])
    states = atoms.arrays["scf_charge_history"].reshape(len(atoms), steps + 1, 4)
    np.testing.assert_allclose(states[:, -1], atoms.arrays["MACE_density_coefficients"], atol=1e-7)
    changes = np.mean(np.abs(np.diff(states, axis=1)), axis=(0, 2))
    np.testing.assert_allclose(atoms.info["scf_convergence"], changes, atol=1e-7)
    left = np.mean(np.abs(states - states[:, -1:]), axis=(0, 2))
    np.testing.assert_allclose(atoms.info["scf_convergence_relative"], left, atol=1e-7)

    for model, history, message in (
        (MODEL, "full_history", "expected the solver linear_mixing, .* found Anderson"),
        (trained(DirectStep()), "absolute_change", "is solved for .* found the mode direct"),
    ):
        with pytest.raises(ValueError, match=message):
            written(model, history)


def test_a_direct_step_from_the_solution_stays_there(tmp_path):
    atoms, solved = cluster(), MODEL.predict(cluster())
    atoms.info["fermi_level"] = float(solved["fermi_level"])
    atoms.arrays["atomic_multipoles"] = solved["multipoles"]
    model = trained(DirectStep())
    inputs = {name: name for name in ("total_charge", "external_field", "fermi_level")}
    keys = KeySpecification(inputs, {"atomic_multipoles": "atomic_multipoles"})
    found = model.predict(atoms, forces=False, keys=keys)
    assert_close(found["multipoles"], solved["multipoles"], 1e-9)
    assert_close(found["energy"], solved["energy"], 1e-11)
    assert "scf_status" not in found
    with pytest.raises(DataError, match="expected atomic_multipoles for the mode direct, found no"):
        model.predict(cluster())
    del atoms.info["fermi_level"]
    with pytest.raises(DataError, match="structure 0: expected fermi_level for the mode direct"):
        model.predict(atoms, keys=keys)


def test_a_restart_from_another_calculation():
    atoms = cluster()
    atoms.calc = MACESCFCalculator(MODEL)
    energy = atoms.get_potential_energy()
    other = cluster()
    other.calc = MACESCFCalculator(MODEL)
    other.calc.start_from(atoms.calc.results)
    assert abs(other.get_potential_energy() - energy) < 1e-9
    assert other.calc.results["scf_steps"] == 0
    other.positions[0, 0] += 1e-3
    other.get_potential_energy()
    assert other.calc.results["scf_steps"] > 0  # only the next calculation
    other.calc.start_from({"multipoles": np.zeros((3, 4)), "fermi_level": 0.0})
    with pytest.raises(DataError, match=r"expected multipoles of \d+ atoms, found .* \(3, 4\)"):
        other.get_potential_energy()
    other.calc.start_from({"multipoles": np.zeros((len(other), 4))})
    with pytest.raises(DataError, match="expected 'fermi_level', found none"):
        other.get_potential_energy()
    assert np.isfinite(other.get_potential_energy())


def test_a_kept_fermi_level_has_to_be_given():
    free = cluster()
    del free.info["fermi_level"]
    free.calc = MACESCFCalculator(MODEL, scf=SelfConsistency(constant_charge=False))
    with pytest.raises(DataError, match="structure 0: expected fermi_level for constant_charge: f"):
        free.get_potential_energy()


def test_options_that_do_not_exist():
    with pytest.raises(ValueError, match="not_converged: expected one of raise, warn, ignore, fou"):
        MACESCFCalculator(MODEL, not_converged="stop")
    local = tiny_model()
    with pytest.raises(ValueError, match="scf: expected no settings of a self-consistent cycle"):
        MACESCFCalculator(local, scf=SelfConsistency())
    with pytest.raises(ValueError, match="warm_start: expected a self-consistent model, found one"):
        MACESCFCalculator(local, warm_start=WarmStart())
