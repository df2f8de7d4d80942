"""A whole run through the command line: files, logs, results, models, and resuming."""

import csv
import fcntl
import io
import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from compilations import compilations
from labelled_water import config, make_input, train_in, water
from rich.console import Console

from mace_scf_jax import progress
from mace_scf_jax.predict.model import load_model
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.preparation import prepare_run
from mace_scf_jax.training.records.results_file import ResultLines
from mace_scf_jax_cli.main import main

FILES = {
    "logs/water_run-123.log",
    "logs/water_run-123_debug.log",
    "results/water_run-123_train.txt",
    "results/water_run-123_history.csv",
    "results/water_run-123_history.json",
    "checkpoints/water_run-123.lock",
    "checkpoints/water_run-123_resume.safetensors",
    "checkpoints/water_run-123_resume_previous.safetensors",
    "water_a.model.safetensors",
    "water_b.model.safetensors",
}
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING): .*")


@pytest.fixture
def again(finished, tmp_path) -> Path:
    """A copy of that folder."""
    for path in finished.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(finished)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path


def results(folder: Path) -> list[dict]:
    lines = (folder / "results/water_run-123_train.txt").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_files_of_a_run(finished):
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    best = {name for name in found if re.search(r"checkpoints/water_run-123_[ab]_epoch-\d", name)}
    assert len(best) == 2
    assert found - best - {"train.xyz", "test.xyz", "config.yaml"} == FILES


def test_the_log_tells_the_run_in_order(finished):
    log = (finished / "logs/water_run-123.log").read_text()
    expected = (
        "mace-scf-jax version: ",
        'Options given: {"name":"water",',
        "Configuration: {",
        "Option 'save_cpu' of MACE changes nothing: model files belong to no device",
        "Option 'wandb_watch' has no effect",
        "Key specification: energy from REF_energy, ",
        "Using random 10% of training set for validation with following indices: ",
        "Structures, and how many of them have each label",
        "| train |          5 |",
        "| valid |          1 |",
        "| water |          2 |",
        "Energies of isolated atoms / eV: H ",
        "Average number of neighbors: 2.0",
        "Model: LocalCharges, ",
        "Number of parameters: ",
        "Parameter groups: embedding: 4, interactions_decay: ",
        "Optimizer: adam, beta 0.9, ",
        "Starting stage a, epochs 0 to 1: learning rate 0.01, loss 1 forces, gradients clipped ",
        "Compiled training step for bucket 1",
        "Epoch 0: loss=",
        "Epoch 1: loss=",
        "Starting stage b, epochs 2 to 3: learning rate 0.001, loss ",
        "Epoch 3: loss=",
        "Training complete",
        "Final error table for stage a",
        "Final error table for stage b",
        "Compiled 5 functions in ",
        "Done",
    )
    places = [log.find(text) for text in expected]
    assert -1 not in places
    assert places == sorted(places)
    prefixed = [line for line in log.splitlines() if not line.startswith(("+-", "| ", "|-"))]
    assert all(LINE.fullmatch(line) for line in prefixed)


def test_the_line_of_an_epoch_tells_how_training_went(finished):
    log = (finished / "logs/water_run-123.log").read_text()
    lines = re.findall(r"Epoch \d: (loss=.*)", log)
    assert len(lines) == 4
    history = (finished / "results/water_run-123_history.csv").read_text()
    rows = list(csv.DictReader(history.splitlines()))
    best = {"a": np.inf, "b": np.inf}
    for line, row in zip(lines, rows, strict=True):
        loss = float(row["valid_loss"])
        expected = (
            f", training loss={float(row['train_loss']):.4f}, lr={float(row['lr']):g}, "
            r"\d+\.\d s"
        )
        improved = ", best so far" if loss < best[row["stage"]] else ""
        assert re.search(f"{expected}{improved}$", line)
        best[row["stage"]] = min(loss, best[row["stage"]])


def test_the_terminal_shows_little_before_the_first_epoch(again, capsys):
    assert train_in(again, "--no-restart_latest") == 0
    shown, _, _ = capsys.readouterr().err.partition("Epoch ")
    assert shown.count(" INFO: ") <= 10
    for text in ("Options given: ", "Configuration: ", "Compiled ", "Parameter groups: "):
        assert text not in shown


def test_formal_charges_that_miss_the_total_charge_are_told(tmp_path, caplog):
    make_input(tmp_path)
    options = config() | {
        "train_file": tmp_path / "train.xyz",
        "model": "FixedChargeBaselinedMACE",
        "atomic_formal_charges": {"H": 0.4, "O": -1.0},
        "work_dir": tmp_path,
    }
    prepare_run(TrainOptions(**options))
    assert (
        "Formal charges do not add up to total_charge in 5 of 5 training configurations (they "
        "differ by up to 0.2 e)"
    ) in caplog.text
    caplog.clear()
    prepare_run(TrainOptions(**options | {"atomic_formal_charges": {"H": 0.5, "O": -1.0}}))
    assert "Formal charges do not" not in caplog.text


@pytest.mark.parametrize(
    "option", ["work_dir", "log_dir", "results_dir", "checkpoints_dir", "model_dir"]
)
def test_folders_that_cannot_be_made_are_named(tmp_path, capsys, option):
    make_input(tmp_path)
    (tmp_path / "file").write_text("")
    assert train_in(tmp_path, f"--{option}", str(tmp_path / "file/inside")) == 2
    expected = f"option '{option}': cannot put files into the folder '{tmp_path}/file/inside': Not"
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_the_debug_log_has_the_terms_of_every_batch(finished):
    assert "loss breakdown" not in (finished / "logs/water_run-123.log").read_text()
    debug = (finished / "logs/water_run-123_debug.log").read_text()
    # 4 epochs: 2 batches, validation and test set; then 3, 1 and 1 batches for each stage.
    assert len(re.findall(r"loss breakdown: forces: [-+0-9.e]+, \n", debug)) == 4 * 4 + 2 * 5


def test_every_step_and_evaluation_is_one_line_of_results(finished):
    records = results(finished)
    steps = [record for record in records if record["mode"] == "opt"]
    assert [(step["epoch"], step["opt_step"]) for step in steps] == [
        (0, 0),
        (0, 1),
        (1, 2),
        (1, 3),
        (2, 0),
        (2, 1),
        (3, 2),
        (3, 3),
    ]
    assert all(step["loss"] == step["loss_terms"]["forces"] for step in steps)
    valid = [record for record in records if record["mode"] == "eval"]
    assert [record["epoch"] for record in valid] == [0, 1, 2, 3]
    assert {"rmse_e_per_atom", "rmse_f", "rmse_dma", "loss", "time"} <= set(valid[0])
    tests = [record for record in records if record["mode"] == "eval_test"]
    assert [record["test_name"] for record in tests] == ["water"] * 4
    final = [record for record in records if record["mode"] == "final"]
    assert [(record["stage"], record["set"]) for record in final] == [
        (stage, name) for stage in "ab" for name in ("train", "valid", "water")
    ]
    assert final[1]["rmse_f"] == min(valid[0]["rmse_f"], valid[1]["rmse_f"])


def test_the_history_has_a_row_for_every_epoch(finished):
    path = finished / "results/water_run-123_history"
    with path.with_suffix(".csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["stage"], row["epoch"]) for row in table] == [
        ("a", "0"),
        ("a", "1"),
        ("b", "2"),
        ("b", "3"),
    ]
    assert [row["lr"] for row in table] == ["0.01", "0.01", "0.001", "0.001"]
    valid = [record for record in results(finished) if record["mode"] == "eval"]
    assert [float(row["valid_rmse_f"]) for row in table] == [r["rmse_f"] for r in valid]
    assert all(float(row["water_loss"]) > 0.0 for row in table)
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["units"]["water_rmse_e_per_atom"] == "eV/atom"
    assert [row["valid_loss"] for row in content["rows"]] == [r["loss"] for r in valid]


def test_the_model_of_a_stage_is_the_one_of_its_best_epoch(finished):
    model = load_model(finished / "water_b.model.safetensors")
    best = min(
        (
            record
            for record in results(finished)
            if record["mode"] == "eval" and record["epoch"] > 1
        ),
        key=lambda record: record["loss"],
    )
    assert model.record["epoch"] == best["epoch"]
    assert model.record["validation_loss"] == best["loss"]
    tested = next(
        record
        for record in results(finished)
        if record["mode"] == "eval_test" and record["epoch"] == best["epoch"]
    )
    references = [water(8), water(9)]
    predictions = model.predict(references)
    errors = [
        prediction["forces"] - atoms.arrays["REF_forces"]
        for prediction, atoms in zip(predictions, references, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(tested["rmse_f"], rel=1e-10)


def test_the_model_file_tells_what_data_it_was_made_from(finished, capsys):
    file = finished / "water_b.model.safetensors"
    record = load_model(file).record
    assert list(record["data"]) == ["train", "valid", "water"]
    train, valid, test = record["data"].values()
    assert train["structures"] + valid["structures"] == 6
    assert test["structures"] == test["labels"]["forces"] == 2
    assert train["elements"] == {"H": 2 * train["structures"], "O": train["structures"]}
    assert train["config_types"] == {"water": train["structures"]}
    assert test["energy_per_atom"]["mean"] == pytest.approx(-2008.5 / 3)
    assert test["forces_rms"] == pytest.approx(np.sqrt((0.8**2 + 0.9**2) / 2))
    assert main(["info", str(file), "--all"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["structures", "2"] in lines
    assert ["forces_rms", f"{test['forces_rms']:.10g}"] in lines


def test_of_a_run_that_is_over_nothing_is_done(finished, capsys):
    """Neither are data read nor a model built; the tables are shown again."""
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with compilations() as compiled:
        assert train_in(finished, "--save_cpu", "--wandb_watch", "all") == 0
    assert compiled == []
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    told = capsys.readouterr().err
    assert "Nothing to do: this run is finished, its models are " in told
    log = (finished / "logs/water_run-123.log").read_text()
    tables = re.findall(r"Final error table for stage .*\n(?:[+|].*\n)+", log)
    assert len(tables) == 2
    assert all(table in told for table in tables)


def test_a_run_that_is_over_is_not_repeated_where_data_are_younger(again, finished):
    os.utime(again / "train.xyz", (5e9, 5e9))
    assert train_in(again) == 0
    repeated = [record for record in results(again) if record["mode"] != "final"]
    assert repeated == [record for record in results(finished) if record["mode"] != "final"]
    for name in ("water_a.model.safetensors", "water_b.model.safetensors"):
        old, new = load_model(finished / name), load_model(again / name)
        assert old.record["epoch"] == new.record["epoch"]


def test_an_interrupted_run_ends_with_the_same_models(tmp_path, finished, monkeypatch, capsys):
    make_input(tmp_path)
    step_done = ResultLines.step_done

    def interrupt(self, record):
        step_done(self, record)
        if (record.epoch, record.batch) == (2, 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultLines, "step_done", interrupt)
    assert train_in(tmp_path) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "water_b.model.safetensors").exists()
    monkeypatch.undo()
    assert train_in(tmp_path) == 0
    assert "Resuming from" in (tmp_path / "logs/water_run-123.log").read_text()
    for name in ("water_a.model.safetensors", "water_b.model.safetensors"):
        old, new = load_model(finished / name), load_model(tmp_path / name)
        assert old.record["validation_loss"] == new.record["validation_loss"]
        np.testing.assert_equal(new.parameters, old.parameters)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--r_max", "3.1"], "model.backbone.r_max: 3.0 then, 3.1 now"),
        (["--batch_size", "3"], "options.batch_size: 2 then, 3 now"),
        (["--valid_set_seed", "5"], "training_data: "),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(again, capsys, words, expected):
    before = {path: path.read_bytes() for path in again.rglob("*.safetensors")}
    assert train_in(again, *words) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in again.rglob("*.safetensors")} == before


def test_two_processes_cannot_train_the_same_run(again, capsys):
    """Which is told before the data are read."""
    (again / "train.xyz").unlink()
    with (again / "checkpoints/water_run-123.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert train_in(again) == 2
    assert "another process is training this run" in capsys.readouterr().err


def test_a_terminal_shows_a_progress_bar(tmp_path, monkeypatch):
    make_input(tmp_path)
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    assert train_in(tmp_path) == 0
    shown = screen.getvalue()
    assert "epoch 3/3" in shown
    assert re.search(r"loss [\d.e+-]+  valid E [\d.]+ meV/atom F [\d.]+ meV/Å", shown)
    assert "INFO: Done" in shown


def test_a_model_without_charges_in_single_precision(tmp_path):
    make_input(tmp_path)
    schedule = "{0: {name: only, start: 0, end: 0, loss: {energy_per_atom: 1, forces: 10}}}"
    words = ["--model", "ScaleShiftMACE", "--train_schedule", schedule, "--no-amsgrad", "--ema"]
    words += ["--compute_avg_num_neighbors", "False", "--avg_num_neighbors", "3"]
    assert train_in(tmp_path, *words, "--default_dtype", "float32") == 0
    trained = load_model(tmp_path / "water_only.model.safetensors")
    assert trained.settings.family == "ScaleShiftMACE"
    assert trained.dtype == np.float32
    labels = np.concatenate([water(index).arrays["REF_forces"] for index in range(5)])
    assert trained.settings.own.scale == pytest.approx(np.sqrt(np.mean(labels**2)))
    assert trained.settings.backbone.avg_num_neighbors == 3.0
    assert np.isfinite(trained.predict(water(0))["energy"])


def test_sampled_structures_and_forces_of_a_part_of_them(tmp_path, caplog):
    make_input(tmp_path)
    changes = {"train_file": tmp_path / "train.xyz", "model": "MACE"}
    sampling = {"force_fraction": 0.4, "sampling_policy": "error_weighted"}
    with caplog.at_level(logging.INFO, logger="mace_scf_jax"):
        prepared = prepare_run(TrainOptions(**config() | changes | sampling))
    assert "Forces of 2 of 5 training structures are used" in caplog.text
    assert sampling.items() <= prepared.fingerprint["options"].items()
    data = prepared.training_data(with_tests=False)
    assert data.sampled_structures == sum(graph.graph_mask.sum() for graph in data.sampled()) == 5
    losses = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    order = prepared.sampling.order(1, losses)
    assert np.sum(order == 4) >= 4  # drawn with probability 0.84
    energies = np.array(
        [entry.configuration.values["energy"] for entry in prepared.training.structures]
    )
    factors = prepared.force_supervision.factors(1)
    found = list(data.training(1, losses=losses))
    for indices, graph in zip((order[:2], order[2:4]), found, strict=True):
        np.testing.assert_array_equal(graph.labels["energy"][:2], energies[indices])
        np.testing.assert_array_equal(graph.weights["forces"][:2], factors[indices])
    (resumed,) = data.training(1, start=1, losses=losses)
    np.testing.assert_array_equal(resumed.labels["energy"], found[1].labels["energy"])
