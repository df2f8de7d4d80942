"""Evaluation of files: predictions beside what was there, errors by config type, all or nothing."""

from __future__ import annotations

import dataclasses

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from tiny_models import (
    assert_close,
    molecule,
    periodic,
    tiny_model,
)

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import BoundaryError
from mace_scf_jax.simulate import evaluate_file

HEADS = {
    "DFT": {
        "info_keys": {
            "energy": "REF_energy",
            "dipole": "REF_dipole",
            "total_charge": "total_charge",
            "external_field": "external_field",
        },
        "arrays_keys": {"forces": "REF_forces", "atomic_multipoles": "REF_multipoles"},
    }
}


@pytest.fixture(scope="module")
def model():
    return dataclasses.replace(tiny_model(), record={"heads": HEADS})


def labelled(seed: int, config_type: str):
    rng = np.random.default_rng(100 + seed)
    atoms = molecule(seed)
    atoms.info.update(
        REF_energy=-900.0 + rng.normal(),
        REF_dipole=rng.normal(size=3),
        config_dipole_weight=np.ones(3),
        config_type=config_type,
        comment="kept",
    )
    atoms.arrays["REF_forces"] = rng.normal(size=(5, 3))
    atoms.arrays["REF_multipoles"] = rng.normal(size=(5, 4))
    return atoms


@pytest.fixture
def structures():
    return [labelled(0, "water"), labelled(1, "ions"), labelled(2, "water"), periodic()]


@pytest.fixture
def source(tmp_path, structures):
    structures[3].info.update(config_type="unlabelled", total_charge=0.0)
    ase.io.write(tmp_path / "in.xyz", structures, format="extxyz")
    return tmp_path / "in.xyz"


def test_predictions_are_written_beside_what_the_file_holds(model, source, structures):
    output = source.with_name("out.xyz")
    result = evaluate_file(model, source, output=output, stress=True, batch_size=2)
    expected = model.predict(structures, stress=True)
    written = ase.io.read(output, index=":")
    assert len(written) == len(result.predictions) == 4
    for atoms, original, prediction in zip(written, structures, expected, strict=True):
        np.testing.assert_allclose(atoms.positions, original.positions, atol=1e-8)
        assert atoms.info["config_type"] == original.info["config_type"]
        for name in ("energy", "dipole", "total_charge", "stress", "electrostatic_energy"):
            assert (f"MACE_{name}" in atoms.info) == (name in prediction)
            if name not in prediction:
                continue
            found = np.reshape(atoms.info[f"MACE_{name}"], prediction[name].shape)
            assert_close(found, prediction[name], 1e-6, name)
        assert_close(atoms.arrays["MACE_forces"], prediction["forces"], 1e-6)
        assert_close(atoms.arrays["MACE_density_coefficients"], prediction["multipoles"], 1e-6)
    for atoms, original in zip(written[:3], structures[:3], strict=True):
        assert atoms.info["comment"] == "kept"
        assert_close(atoms.info["REF_energy"], original.info["REF_energy"], 1e-12)
        assert_close(atoms.arrays["REF_forces"], original.arrays["REF_forces"], 1e-7)


def test_contributions_are_written_and_forces_left_out(model, source, structures):
    output = source.with_name("out.xyz")
    result = evaluate_file(model, source, output=output, forces=False, contributions=True)
    assert "rmse_f" not in result.metrics["all"]
    assert "rmse_e_per_atom" in result.metrics["all"]
    for atoms, prediction in zip(ase.io.read(output, index=":"), result.predictions, strict=True):
        assert "MACE_forces" not in atoms.arrays
        parts = atoms.info["MACE_BO_contributions"]
        assert_close(parts, prediction["contributions"], 1e-6)
        field = np.reshape(atoms.info.get("external_field", np.zeros(3)), 3)
        total = parts.sum() + atoms.info["MACE_electrostatic_energy"]
        total += atoms.info.get("MACE_dipole", np.zeros(3)) @ field
        assert_close(atoms.info["MACE_energy"], total, 1e-6)


def test_what_single_families_predict_is_written(tmp_path):
    model = tiny_model("MACEQEq")
    ase.io.write(tmp_path / "in.xyz", [molecule(), molecule(1)], format="extxyz")
    result = evaluate_file(model, tmp_path / "in.xyz", output=tmp_path / "out.xyz", forces=False)
    written = ase.io.read(tmp_path / "out.xyz", index=":")
    for atoms, prediction in zip(written, result.predictions, strict=True):
        for name in ("chemical_potential", "equilibration_energy"):
            assert_close(atoms.info[f"MACE_{name}"], prediction[name], 1e-7, name)


def test_results_of_a_calculator_in_the_file_are_kept(model, tmp_path):
    atoms = molecule()
    energy, forces = -1.5, np.arange(15.0).reshape(5, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    ase.io.write(tmp_path / "in.xyz", atoms, format="extxyz")
    evaluate_file(model, tmp_path / "in.xyz", output=tmp_path / "out.xyz")
    written = ase.io.read(tmp_path / "out.xyz")
    assert written.get_potential_energy() == energy
    np.testing.assert_allclose(written.get_forces(), forces, atol=1e-7)
    assert abs(written.info["MACE_energy"] - energy) > 1.0


def test_errors_by_config_type(model, source, structures):
    metrics = evaluate_file(model, source).metrics
    assert set(metrics) == {"water", "ions", "unlabelled", "all"}
    # a total charge that the file holds is an input and a label
    names = {"mae_total_charge", "rmse_total_charge", "q95_total_charge"}
    assert set(metrics["unlabelled"]) == names
    predictions = model.predict(structures)
    for config_type, members in {"water": (0, 2), "ions": (1,), "all": (0, 1, 2)}.items():

        def errors(label, output, members=members):
            return [
                np.asarray(structures[i].info.get(label, structures[i].arrays.get(label)))
                - predictions[i][output]
                for i in members
            ]

        def rms(values):
            return np.sqrt(np.mean(np.square(values)))

        found = metrics[config_type]
        energy, forces = errors("REF_energy", "energy"), errors("REF_forces", "forces")
        multipoles = errors("REF_multipoles", "multipoles")
        np.testing.assert_allclose(found["rmse_e_per_atom"], rms(energy) / 5, rtol=1e-5)
        np.testing.assert_allclose(found["mae_e_per_atom"], np.mean(np.abs(energy)) / 5, rtol=1e-5)
        np.testing.assert_allclose(found["rmse_f"], rms(forces), rtol=1e-6)
        np.testing.assert_allclose(found["mae_f"], np.mean(np.abs(forces)), rtol=1e-6)
        np.testing.assert_allclose(found["rmse_dma"], rms(multipoles), rtol=1e-6)
        np.testing.assert_allclose(found["rmse_mu"], rms(errors("REF_dipole", "dipole")), rtol=1e-6)


def test_a_bad_structure_means_that_nothing_is_written(model, source, structures):
    output = source.with_name("out.xyz")
    structures[1].symbols[2] = "Au"
    ase.io.write(source, structures, format="extxyz")
    with pytest.raises(DataError, match=r"in\.xyz, configuration 1: found element Au"):
        evaluate_file(model, source, output=output)
    structures[1].symbols[2] = "H"
    structures[2].pbc = (True, False, False)
    ase.io.write(source, structures, format="extxyz")
    with pytest.raises(BoundaryError, match=r"in\.xyz, configuration 2: found pbc TFF"):
        evaluate_file(model, source, output=output)
    assert [path.name for path in source.parent.iterdir()] == ["in.xyz"]


def test_a_failure_to_write_leaves_nothing_behind(model, source, monkeypatch):
    write = ase.io.write

    def fail_in_the_middle(path, structures, **options):
        write(path, structures[:1], **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(ase.io, "write", fail_in_the_middle)
    with pytest.raises(OSError, match="no space left"):
        evaluate_file(model, source, output=source.with_name("out.xyz"))
    assert [path.name for path in source.parent.iterdir()] == ["in.xyz"]


def test_a_missing_file(model, tmp_path):
    with pytest.raises(DataError, match=r"none\.xyz: no such file"):
        evaluate_file(model, tmp_path / "none.xyz", output=tmp_path / "out.xyz")
    assert list(tmp_path.iterdir()) == []
