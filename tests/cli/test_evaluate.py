"""``mace-scf-jax evaluate``: predictions in a file, errors on the terminal, bad input refused."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from labelled_water import water

from mace_scf_jax.predict.model import load_model
from mace_scf_jax.predict.response import predict_response
from mace_scf_jax_cli.main import main


@pytest.fixture
def model(finished) -> str:
    return str(finished / "water_b.model.safetensors")


def test_predictions_are_written_beside_the_labels(model, tmp_path, capsys):
    references = [water(index) for index in (7, 3)]
    write(tmp_path / "in.xyz", references, format="extxyz")
    output = tmp_path / "out.xyz"
    assert main(["evaluate", model, str(tmp_path / "in.xyz"), "--output", str(output)]) == 0

    written = read(output, ":", format="extxyz")
    predictions = load_model(model).predict(references)
    for atoms, reference, prediction in zip(written, references, predictions, strict=True):
        assert atoms.info["REF_energy"] == reference.info["REF_energy"]
        assert atoms.info["MACE_energy"] == pytest.approx(float(prediction["energy"]), abs=1e-6)
        np.testing.assert_allclose(atoms.arrays["MACE_forces"], prediction["forces"], atol=1e-7)
        for name in ("multipoles", "density_coefficients"):
            found = atoms.arrays[f"MACE_{name}"]
            np.testing.assert_allclose(found, prediction["multipoles"], atol=1e-7)
        charges = atoms.arrays["MACE_charges"]
        np.testing.assert_allclose(charges, prediction["multipoles"][:, 0], atol=1e-7)
    shown = capsys.readouterr().out
    assert "RMSE F" in shown
    assert f"Wrote 2 structures with predictions to {output}" in shown


def test_any_format_of_ase_is_read_and_written(model, tmp_path, capsys, caplog):
    """Labels are found by the names of ASE's results; a format without labels has no errors."""
    references = [water(index) for index in (7, 3)]
    labelled = []
    for atoms in references:
        energy, forces = atoms.info["REF_energy"], atoms.arrays["REF_forces"]
        labelled.append(Atoms(atoms.symbols, atoms.positions, cell=atoms.cell))
        labelled[-1].calc = SinglePointCalculator(labelled[-1], energy=energy, forces=forces)
    write(tmp_path / "in.xyz", references, format="extxyz")
    write(tmp_path / "in.traj", labelled)
    write(tmp_path / "in.pdb", labelled)

    def row(shown: str) -> str:
        """The errors of all structures."""
        return next(line for line in shown.splitlines() if line.startswith("| all"))

    def errors(name: str, *words: str) -> str:
        assert main(["evaluate", model, str(tmp_path / name), *words]) == 0
        return capsys.readouterr().out

    expected = errors("in.xyz")
    caplog.clear()
    output = tmp_path / "out.traj"
    heads = "{x: {info_keys: {energy: energy}, arrays_keys: {forces: forces}}}"
    shown = errors("in.traj", "--heads", heads, "--output", str(output))
    assert row(shown) == row(expected)
    predictions = load_model(model).predict(references)
    for atoms, prediction in zip(read(output, ":"), predictions, strict=True):
        assert atoms.get_potential_energy() == pytest.approx(float(prediction["energy"]), abs=1e-9)
        np.testing.assert_allclose(atoms.get_charges(), prediction["charges"], atol=1e-9)
    assert "not found" in row(errors("in.pdb"))
    assert "no configuration has energy (key 'REF_energy')" in caplog.text
    assert "not found" in row(errors("in.traj"))
    assert "keys that occur: energy, forces" in caplog.text
    assert main(["evaluate", model, str(output), "--contributions", "--output", "o.traj"]) == 2
    assert "contributions: expected an output of extended XYZ" in capsys.readouterr().err


def test_the_errors_are_those_of_the_training(model, finished, capsys):
    assert main(["evaluate", model, str(finished / "test.xyz")]) == 0
    log = (finished / "logs/water_run-123.log").read_text()
    (in_log,) = [row for row in log.splitlines() if row.startswith("| water ")][-1:]
    (in_table,) = [
        row for row in capsys.readouterr().out.splitlines() if row.startswith("| water ")
    ]
    assert in_table.split("|")[2:] == in_log.split("|")[2:]


def test_born_charges_are_written_and_scored(model, tmp_path, capsys):
    """Against those that the model itself predicted, in its order and in the other."""
    atoms = water(3)
    atoms.positions += np.random.default_rng(0).normal(scale=0.1, size=(3, 3))
    write(tmp_path / "in.xyz", [atoms], format="extxyz")
    first, second = tmp_path / "first.xyz", tmp_path / "second.xyz"
    words = ["evaluate", model, str(tmp_path / "in.xyz"), "--output", str(first)]
    assert main([*words, "--born-charges"]) == 0
    assert "Born charges" not in capsys.readouterr().out
    written = read(first, format="extxyz")
    expected = predict_response(load_model(model), atoms).born_charges
    np.testing.assert_allclose(
        written.arrays["MACE_born_charges"].reshape(-1, 3, 3), expected, atol=1e-7
    )
    written.arrays["bec"] = expected.swapaxes(1, 2).reshape(-1, 9)
    written.info["dipole"] = written.info["MACE_dipole"]
    write(tmp_path / "in.xyz", [written], format="extxyz")
    words[-1] = str(second)
    assert main([*words, "--born-charges", "bec"]) == 0
    shown = capsys.readouterr().out
    assert "labels: displacement_rows, by the rotation rule" in shown
    rows = {
        row.split("|")[1].strip(): row.split("|")[2:-1]
        for row in shown.splitlines()[1:]
        if row.startswith("|")
    }
    for name, count in (("dipole / e Å", "3"), ("Born charges / e", "27"), ("H isotropic", "2")):
        assert [cell.strip() for cell in rows[name]][:4] == [count, "0.0000", "1.000", "1.000"]
    assert "MACE_born_charges" in read(second, format="extxyz").arrays
    assert main([*words, "--born-charges", "becs"]) == 2
    assert "no structure has the array 'becs'; did you mean 'bec'" in capsys.readouterr().err


def test_keys_and_table_can_be_chosen(model, finished, capsys):
    heads = "{x: {info_keys: {total_charge: q}, arrays_keys: {atomic_multipoles: none}}}"
    words = ["--heads", heads, "--error-table", "DensityCoefficientsRMSE", "--batch-size", "1"]
    assert main(["evaluate", model, str(finished / "test.xyz"), *words]) == 0
    shown = capsys.readouterr().out
    assert "RMSE charges" in shown
    assert "not found" in shown


def test_parity_plots(model, finished, tmp_path, capsys):
    picture = tmp_path / "parity.png"
    assert main(["evaluate", model, str(finished / "test.xyz"), "--plot", str(picture)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")

    other = water(2)
    other.info["config_type"] = "other"
    write(tmp_path / "two.xyz", [water(1), other], format="extxyz")
    picture = tmp_path / "two.pdf"
    assert main(["evaluate", model, str(tmp_path / "two.xyz"), "--plot", str(picture)]) == 0
    by_type = tmp_path / "two_by_type.pdf"
    assert capsys.readouterr().out.splitlines()[-2:] == [f"Wrote {picture}", f"Wrote {by_type}"]
    assert by_type.read_bytes().startswith(b"%PDF")


def test_pictures_of_an_unknown_kind_are_refused_first(model, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", model, "nowhere.xyz", "--plot", "parity.gif"])
    assert "expected a .png or .pdf file, found 'parity.gif'" in capsys.readouterr().err


def rewritten(model: str, path, **metadata: str) -> str:
    """A copy of a model file with other metadata."""
    with safetensors.safe_open(model, framework="numpy") as file:
        original = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(tensors, path, metadata=original | metadata)
    return str(path)


def test_bad_input_is_refused_without_writing(model, tmp_path, capsys):
    content = (tmp_path / "whole").parent  # the folder of everything below
    truncated, other = content / "truncated.safetensors", content / "other.safetensors"
    with open(model, "rb") as file:
        data = file.read()
    truncated.write_bytes(data[: len(data) // 2])
    other.write_text("not a model")
    newer = rewritten(model, content / "newer.safetensors", format_version="99")
    damaged = rewritten(model, content / "damaged.safetensors", sha256="0" * 64)
    other_settings = json.dumps({"family": "LocalCharges"})
    altered = rewritten(model, content / "altered.safetensors", settings=other_settings)

    sulphur = water(0)
    sulphur.numbers[0] = 16
    write(content / "water.xyz", [water(0)], format="extxyz")
    write(content / "sulphur.xyz", [water(0), sulphur], format="extxyz")
    good = str(content / "water.xyz")
    for words, expected in (
        (["nowhere", good], "nowhere: no such model file"),
        ([str(truncated), good], "not a complete model file"),
        ([str(other), good], "not a complete model file"),
        ([newer, good], "written in format version 99"),
        ([damaged, good], "do not match their checksum"),
        ([altered, good], "do not match their checksum"),
        ([model, str(content / "no.xyz")], "no.xyz: no such file"),
        ([model, str(content / "sulphur.xyz")], "configuration 1: found element S, unknown to"),
        ([model, good, "--mode", "direct"], "scf: expected no settings of a self-consistent cycle"),
        ([model, good, "--mode", "direct", "--solver", "auto"], "--mode direct: expected no optio"),
        ([model, good, "--scf-history", "absolute_change"], "found LocalCharges"),
        ([model, good, "--heads", "{a: 1}"], "expected exactly 'info_keys' and 'arrays_keys'"),
    ):
        output = content / "out.xyz"
        assert main(["evaluate", *words, "--output", str(output)]) == 2, words
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: "), error
        assert expected in error
        assert len(error.splitlines()) == 1
        assert not output.exists()
