"""``mace-scf-jax preprocess``, and training on what it wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import write
from labelled_water import config, make_input, train_in, water

from mace_scf_jax.data.stored_set import open_stored
from mace_scf_jax.predict.model import load_model
from mace_scf_jax_cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the input of a run, in which commands are given."""
    make_input(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(folder: Path) -> list[dict]:
    """Everything that a run wrote down about itself, but the times."""
    lines = (folder / "results/water_run-123_train.txt").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if "time" not in k} for record in records]


def test_training_on_preprocessed_data_gives_the_same_weights(folder, finished, capsys):
    shards = ["--shard-size", "0.001", "--workers", "1"]
    assert main(["preprocess", "config.yaml", "-o", "data", *shards]) == 0
    told = capsys.readouterr()
    assert "| train |          6 |      6 |" in told.err
    assert "test set: 2 structures with 6 atoms, 12 edges and" in told.err
    assert told.out == "Wrote data: train with --train_file data --test_file data\n"
    assert len(list((folder / "data" / "train").iterdir())) > 1

    for file in ("train.xyz", "test.xyz"):
        (folder / file).unlink()
    assert train_in(folder, "--train_file", "data", "--test_file", "data") == 0
    assert numbers(folder) == numbers(finished)
    for name in ("water_a.model.safetensors", "water_b.model.safetensors"):
        old, new = load_model(finished / name), load_model(folder / name)
        assert old.record["validation_loss"] == new.record["validation_loss"]
        np.testing.assert_equal(new.parameters, old.parameters)

    # The same run, so the original files may take over again, and nothing is left to be done.
    make_input(folder)
    assert train_in(folder) == 0
    steps = [[r for r in numbers(run) if r["mode"] == "opt"] for run in (folder, finished)]
    assert steps[0] == steps[1]


def test_heads_and_a_file_are_enough(folder):
    words = ["--heads", str(config()["heads"]), "--r_max", "3.0", "--workers", "1"]
    assert main(["preprocess", "--train_file", "train.xyz", *words, "--output", "new/data"]) == 0
    found = open_stored(folder / "new" / "data", split="train")
    assert found.description.cutoff == 3.0
    assert found.description.kspace_cutoff is None
    assert len(found) == 6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["config.yaml"], "the following arguments are required: -o/--output"),
        (["config.yaml", "-o", "data", "--r_mx", "3"], "'r_mx'; did you mean 'r_max'?"),
        (["config.yaml", "-o", "data", "--workers", "0"], "workers: found 0, expected at least 1"),
        (["config.yaml", "-o", "data", "--workers", "two"], "invalid int value: 'two'"),
        (["config.yaml", "-o", "logs"], "logs: exists already"),
        (["config.yaml", "-o", "data", "--train_file", "no.xyz"], "no.xyz: no such file"),
        (["-o", "data", "--train_file", "train.xyz"], "option 'heads' is required"),
    ],
)
def test_mistakes_are_refused_and_leave_nothing(folder, capsys, words, expected):
    (folder / "logs").mkdir()
    before = sorted(folder.rglob("*"))
    assert main(["preprocess", *words, *([] if "--workers" in words else ["--workers", "1"])]) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"r_max": 3.5}, "data: preprocessed with r_max 3 Å (the run asks for 3.5 Å)"),
        ({"atomic_multipoles_max_l": 0}, "atomic_multipoles_max_l 1 (the run asks for 0)"),
        ({"kspace_cutoff_factor": 0.6}, "preprocessed with reciprocal vectors up to"),
        ({"test_file": "other/train"}, "other.xyz, configuration 0: found element S, unknown to"),
    ],
)
def test_data_for_another_run_are_refused(folder, capsys, options, expected):
    assert main(["preprocess", "config.yaml", "-o", "data", "--workers", "1"]) == 0
    sulphur = water(0)
    sulphur.numbers[0] = 16
    write("other.xyz", [sulphur], format="extxyz")
    words = ["--train_file", "other.xyz", "-o", "other", "--workers", "1", "--test_file", "None"]
    assert main(["preprocess", "config.yaml", "--log_on_test_sets=false", *words]) == 0
    changed = config() | {"train_file": "data"} | options
    Path("changed.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    capsys.readouterr()
    assert main(["train", "changed.yaml"]) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "logs").exists()


def test_the_help_shows_options_and_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["preprocess", "--help"])
    text = capsys.readouterr().out
    assert "mace-scf-jax preprocess [FILE.yaml]" in text
    for name in (
        "--output",
        "--workers",
        "--shard_size",
        "--derivatives",
        "--heads",
        "--kspace_cutoff_factor",
    ):
        assert name in text
    assert "--train_schedule" not in text
