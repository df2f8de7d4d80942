"""``mace-scf-jax train --committee``: members, what is trained again, failures; evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.io import read
from labelled_water import make_input, train_in
from tiny_models import tiny_settings

from mace_scf_jax.models.model_file import load_model_file, save_model
from mace_scf_jax.simulate import load_committee
from mace_scf_jax.training import committee as committee_training
from mace_scf_jax.training.loop.state import DivergedTrainingError
from mace_scf_jax.training.records.run_files import RunFiles
from mace_scf_jax_cli.main import main


@pytest.fixture(scope="module")
def sequential(tmp_path_factory) -> Path:
    """The folder of a committee of two, trained one after the other."""
    folder = tmp_path_factory.mktemp("sequential")
    make_input(folder)
    assert train_in(folder, "--committee", "2") == 0
    return folder


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Folders of the members trained from now on, in order; their models are not those of a run."""
    folders = []

    def train(options, programs):
        folders.append(options.work_dir.name)
        files = RunFiles.of(options)
        files.make_folders()
        record = {"training_options": json.loads(options.model_dump_json())}
        for stage in options.train_schedule:
            weights = {"weights": np.full(2, float(options.seed))}
            save_model(files.model(stage.name), weights, tiny_settings(), record)

    monkeypatch.setattr(committee_training, "train", train)
    return folders


def parameters(folder: Path, member: int, stage: str) -> dict:
    return load_model_file(folder / f"member-{member}/water_{stage}.model.safetensors").parameters


def assert_same(actual: dict, expected: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_the_first_member_is_the_run_without_committee(sequential, finished):
    for stage in "ab":
        alone = load_model_file(finished / f"water_{stage}.model.safetensors").parameters
        assert_same(parameters(sequential, 1, stage), alone)
        first = jax.tree.leaves(parameters(sequential, 1, stage))
        second = jax.tree.leaves(parameters(sequential, 2, stage))
        assert any(np.any(a != b) for a, b in zip(first, second, strict=True))


def test_members_in_sequence_compile_once(sequential):
    logs = [
        next((sequential / f"member-{member}/logs").glob("*[0-9].log")).read_text()
        for member in (1, 2)
    ]
    assert "Compiled training step" in logs[0]
    assert "Compiled nothing" in logs[1]


@pytest.mark.slow
def test_members_at_the_same_time_equal_members_in_sequence(sequential, tmp_path):
    make_input(tmp_path)
    assert train_in(tmp_path, "--committee", "2", "--committee-parallel", "2") == 0
    for member in (1, 2):
        for stage in "ab":
            assert_same(parameters(tmp_path, member, stage), parameters(sequential, member, stage))
    descriptions = [(each / "committee.json").read_text() for each in (tmp_path, sequential)]
    assert descriptions[0] == descriptions[1]


def test_the_description_of_a_committee(sequential):
    description = json.loads((sequential / "committee.json").read_text())
    assert description["size"] == 2
    assert description["split_seed"] == 123
    assert [entry["seed"] for entry in description["members"]] == [123, 124]
    assert description["members"][1]["models"] == {
        stage: f"member-2/water_{stage}.model.safetensors" for stage in "ab"
    }
    splits = {
        line.split("WARNING: ")[-1].split("INFO: ")[-1]
        for log in sequential.glob("member-*/logs/*[0-9].log")
        for line in log.read_text().splitlines()
        if "for validation with following indices" in line
    }
    assert len(splits) == 1


def test_only_members_that_are_not_finished_are_trained(tmp_path, trained):
    make_input(tmp_path)
    assert train_in(tmp_path, "--committee", "2") == 0
    assert trained == ["member-1", "member-2"]
    assert train_in(tmp_path, "--committee", "2") == 0
    assert len(trained) == 2
    (tmp_path / "member-1/water_b.model.safetensors").unlink()
    assert train_in(tmp_path, "--committee", "3") == 0
    assert trained[2:] == ["member-1", "member-3"]
    assert [model.parameters["weights"][0] for model in load_committee(tmp_path).members] == [
        123.0,
        124.0,
        125.0,
    ]
    assert train_in(tmp_path, "--committee", "2") == 0
    assert len(load_committee(tmp_path)) == 2
    assert len(trained) == 4
    assert train_in(tmp_path, "--committee", "2", "--batch_size", "3") == 0
    assert trained[4:] == ["member-1", "member-2"]
    assert train_in(tmp_path, "--committee", "2", "--batch_size", "3", "--no-restart_latest") == 0
    assert trained[6:] == ["member-1", "member-2"]


def test_a_committee_from_python(tmp_path, trained, monkeypatch):
    make_input(tmp_path)
    monkeypatch.chdir(tmp_path)
    committee = committee_training.train_committee("config.yaml", size=2)
    assert trained == ["member-1", "member-2"]
    assert [entry.seed for entry in committee.members] == [123, 124]


def test_other_data_are_refused(tmp_path, trained, capsys):
    make_input(tmp_path)
    assert train_in(tmp_path, "--committee", "1") == 0
    text = (tmp_path / "train.xyz").read_text()
    (tmp_path / "train.xyz").write_text(text.replace("REF_energy=-2001", "REF_energy=-2002"))
    assert train_in(tmp_path, "--committee", "2") == 2
    assert "was trained on other training or validation data" in capsys.readouterr().err
    assert trained == ["member-1"]


def test_folders_of_their_own(tmp_path, trained):
    make_input(tmp_path)
    assert train_in(tmp_path, "--committee", "2", "--model_dir", "models", "--work_dir", "w") == 0
    description = json.loads((tmp_path / "w/committee.json").read_text())
    paths = [entry["models"]["b"] for entry in description["members"]]
    assert paths == [f"../models/member-{number}/water_b.model.safetensors" for number in (1, 2)]
    assert len(load_committee(tmp_path / "w")) == 2


def test_a_member_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    make_input(tmp_path)

    def failing(options, programs):
        if options.seed == 123:
            raise DivergedTrainingError("the loss is not finite")

    monkeypatch.setattr(committee_training, "train", failing)
    assert train_in(tmp_path, "--committee", "2") == 2
    shown = capsys.readouterr().err
    assert "1 of 2 members could not be trained" in shown
    assert "member 1: the loss is not finite" in shown
    description = json.loads((tmp_path / "committee.json").read_text())
    assert [entry["number"] for entry in description["members"]] == [2]
    assert main(["evaluate", str(tmp_path), str(tmp_path / "test.xyz")]) == 2
    assert "expected 2 trained members, found 1; not finished: 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failure_in_another_process_is_told(tmp_path, capsys):
    make_input(tmp_path)
    words = ("--committee", "1", "--committee_parallel", "2", "--device", "tpu")
    assert train_in(tmp_path, *words) == 2
    assert "member 1: option 'device': JAX finds no tpu device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--committee", "0"), "option 'committee': expected at least 1, found 0"),
        (("--committee", "two"), "argument --committee: invalid int value: 'two'"),
        (
            ("--committee", "2", "--committee_parallel", "0"),
            "option 'committee_parallel': expected at least 1, found 0",
        ),
        (("--committee_parallel", "2"), "'committee_parallel': needs --committee N, found none"),
        (("--committee", "2", "--train_file", "no.xyz"), "no.xyz: no such file"),
    ],
)
def test_bad_input_is_refused_without_writing(tmp_path, capsys, words, expected):
    make_input(tmp_path)
    before = set(tmp_path.iterdir())
    assert train_in(tmp_path, *words) == 2
    assert expected in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_evaluate_shows_and_writes_the_spread(sequential, tmp_path, capsys):
    output = tmp_path / "out.xyz"
    words = [str(sequential), str(sequential / "test.xyz"), "--output", str(output)]
    assert main(["evaluate", *words]) == 0
    shown = capsys.readouterr().out
    assert "RMSE F" in shown
    assert "Standard deviation over the members of the committee" in shown
    structures = read(sequential / "test.xyz", ":", format="extxyz")
    predictions = load_committee(sequential).predict(structures)
    for atoms, expected in zip(read(output, ":", format="extxyz"), predictions, strict=True):
        assert atoms.info["MACE_energy"] == pytest.approx(float(expected.mean["energy"]), abs=1e-6)
        assert atoms.info["MACE_energy_std"] == pytest.approx(
            float(expected.std["energy"]), abs=1e-7
        )
        np.testing.assert_allclose(
            atoms.arrays["MACE_forces_std"], expected.std["forces"], atol=1e-7
        )
    (row,) = [line for line in shown.splitlines() if line.startswith("| all ")][-1:]
    largest = max(np.linalg.norm(entry.std["forces"], axis=1).max() for entry in predictions)
    assert f"/ {1000 * largest:.2f} |" in row


def test_evaluate_without_forces_and_with_contributions(sequential, tmp_path, capsys):
    output = tmp_path / "out.xyz"
    words = [str(sequential), str(sequential / "test.xyz"), "--output", str(output)]
    assert main(["evaluate", *words, "--no-forces", "--contributions"]) == 0
    shown = capsys.readouterr().out
    assert "Most uncertain energy: configurations" in shown
    assert "Most uncertain forces" not in shown
    structures = read(sequential / "test.xyz", ":", format="extxyz")
    predictions = load_committee(sequential).predict(structures, forces=False)
    for atoms, expected in zip(read(output, ":", format="extxyz"), predictions, strict=True):
        assert not {"MACE_forces", "MACE_forces_std"} & set(atoms.arrays)
        parts = np.stack([member["contributions"] for member in expected.members])
        for ending, values in (("", parts.mean(axis=0)), ("_std", parts.std(axis=0, ddof=1))):
            found = atoms.info[f"MACE_BO_contributions{ending}"]
            np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-7)
        assert np.any(expected.std["contributions"] > 0.0)
