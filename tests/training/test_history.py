"""Results files: what is repeated counts once. History: one row per evaluated epoch, with units."""

import csv
import json

import numpy as np
import pytest

from mace_scf_jax.predict.metrics import metric_unit
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.optimise.learning_rates import named_rates, start_of_stage
from mace_scf_jax.training.records.history import TrainingHistory
from mace_scf_jax.training.records.results_file import ResultsError, read_results


def step(epoch: int, number: int, loss: float, stage: str = "a", **more) -> dict:
    terms = {"forces": 0.75 * loss, "energy_per_atom": 0.25 * loss}
    record = {"mode": "opt", "stage": stage, "epoch": epoch, "opt_step": number, "loss": loss}
    return record | {"loss_terms": terms, "time": 0.5} | more


def evaluation(epoch: int, loss: float, stage: str = "a", **more) -> dict:
    record = {"mode": "eval", "stage": stage, "epoch": epoch, "loss": loss, "rmse_f": loss / 10}
    return record | {"learning_rates": {"lr": 0.01}, "time": 0.25} | more


def on_test_set(epoch: int, loss: float) -> dict:
    return evaluation(epoch, loss) | {"mode": "eval_test", "test_name": "big_cells"}


RUN = [
    step(0, 0, 4.0),
    step(0, 1, 2.0),
    evaluation(0, 5.0),
    on_test_set(0, 6.0),
    step(1, 2, 1.0),
    step(1, 3, 1.5),
    step(2, 0, 0.5, "b"),
    step(2, 1, 0.25, "b"),
    evaluation(2, 3.0, "b"),
]


def written(folder, records, *, tail=""):
    path = folder / "x_run-1_train.txt"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def test_rows_are_the_evaluated_epochs(tmp_path):
    history = TrainingHistory.read(written(tmp_path, RUN))
    assert [(row["stage"], row["epoch"]) for row in history.rows] == [("a", 0), ("b", 2)]
    np.testing.assert_array_equal(history.column("time"), [1.5, 3.75])
    np.testing.assert_array_equal(history.column("train_time"), [1.0, 1.0])
    np.testing.assert_array_equal(history.column("evaluation_time"), [0.5, 0.25])
    np.testing.assert_array_equal(history.column("train_loss"), [3.0, 0.375])
    np.testing.assert_array_equal(history.column("train_loss_forces"), [2.25, 0.28125])
    np.testing.assert_array_equal(history.column("valid_rmse_f"), [0.5, 0.3])
    np.testing.assert_array_equal(history.column("big_cells_loss"), [6.0, np.nan])
    times = ("time", "train_time", "evaluation_time")
    assert history.columns[:6] == ("stage", "epoch", *times, "lr")
    units = {"valid_rmse_f": "eV/Å", "big_cells_rmse_f": "eV/Å"}
    assert history.units == dict.fromkeys(times, "s") | units
    with pytest.raises(KeyError, match="rmse_x"):
        history.column("rmse_x")


def test_both_files_hold_the_table(tmp_path):
    history = TrainingHistory.read(written(tmp_path, RUN))
    history.write_csv(tmp_path / "h.csv")
    history.write_json(tmp_path / "h.json")
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["big_cells_loss"] for row in rows] == ["6.0", ""]
    assert tuple(rows[0]) == history.columns
    content = json.loads((tmp_path / "h.json").read_text())
    assert tuple(content["rows"]) == history.rows
    assert content["units"] == history.units


def test_what_was_repeated_after_resuming_counts_once(tmp_path):
    lost = [step(1, 2, 9.0), step(1, 3, 9.0), evaluation(1, 9.0)]
    records = [*RUN[:4], *lost, *RUN[4:]]
    assert read_results(written(tmp_path, records)) == read_results(written(tmp_path, RUN))


def test_a_run_that_was_started_anew_replaces_the_old_one(tmp_path):
    old_final = {"mode": "final", "stage": "a", "epoch": 0, "set": "valid", "rmse_f": 1.0}
    results = read_results(written(tmp_path, [*RUN, old_final, *RUN[:3]]))
    assert [(s["epoch"], s["opt_step"]) for s in results.steps] == [(0, 0), (0, 1)]
    assert len(results.evaluations) == 1
    assert results.final == {}


def test_final_errors(tmp_path):
    final = [
        {"mode": "final", "stage": "a", "epoch": 0, "set": name, "rmse_f": error}
        for name, error in (("train", 0.1), ("valid", 0.2))
    ]
    results = read_results(written(tmp_path, RUN + final))
    assert results.final == {"a": {"train": {"rmse_f": 0.1}, "valid": {"rmse_f": 0.2}}}
    assert results.final_epochs == {"a": 0}
    assert results.stages == ("a", "b")


def test_self_consistent_solutions_are_counted_per_epoch(tmp_path):
    counts = {"structures": 8, "diverged": 1}
    records = [
        step(0, 0, 1.0, scf=counts),
        step(0, 1, 1.0, scf=counts),
        evaluation(0, 1.0, scf={"structures": 5, "diverged": 0}),
    ]
    (row,) = TrainingHistory.read(written(tmp_path, records)).rows
    assert (row["train_scf_structures"], row["train_scf_diverged"]) == (16, 2)
    assert (row["valid_scf_structures"], row["valid_scf_diverged"]) == (5, 0)


def test_a_line_that_was_cut_off_is_left_out_with_a_warning(tmp_path, caplog):
    path = written(tmp_path, RUN, tail='{"mode": "opt", "sta')
    assert len(read_results(path).steps) == 6
    assert f"{path}, line 10: not a complete record" in caplog.text


def test_files_without_steps_are_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"none\.txt: no such file"):
        read_results(tmp_path / "none.txt")
    with pytest.raises(ResultsError, match="no record of a training step"):
        read_results(written(tmp_path, [evaluation(0, 1.0)]))


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("rmse_e_per_atom", "eV/atom"),
        ("mae_spread_e_per_atom", "eV/atom"),
        ("q95_f", "eV/Å"),
        ("rel_rmse_mu", "%"),
        ("rmse_mu_per_atom", "e Å/atom"),
        ("rmse_dma", "e Å^l"),
        ("rmse_charges", "e"),
        ("rmse_local_dipoles", "e Å"),
        ("mae_esp", "V"),
        ("loss", ""),
    ],
)
def test_units_of_metrics(metric, unit):
    assert metric_unit(metric) == unit


def test_learning_rates_have_the_names_of_the_schedule():
    stage = Stage(
        name="a", start=0, end=1, loss={"forces": 1.0}, lr=0.02, group_lrs={"embedding": 0.001}
    )
    assert named_rates(stage, start_of_stage(stage)) == {"lr": 0.02, "embedding_lr": 0.001}
