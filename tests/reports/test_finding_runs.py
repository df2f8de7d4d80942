"""Finding a run by its folder, results file or configuration, and reading its log."""

from pathlib import Path

import pytest
import yaml
from imaginary_run import TAG, make_run

from mace_scf_jax.predict.committee import CommitteeFile, DataDigests
from mace_scf_jax.reports.training_run import RunError, find_run, find_runs, read_log
from mace_scf_jax.training.config.option_reference import EXAMPLES


def test_a_run_is_found_by_its_folder_or_its_results(folder):
    for path in (folder, folder / f"results/{TAG}_train.txt"):
        run = find_run(path)
        assert (run.tag, run.name, run.seed) == (TAG, "water", 7)
        assert run.stage_epochs == (("coarse", 0, 3), ("fine", 4, 7))
        assert run.best_epochs() == {"coarse": 3, "fine": 7}
        assert run.planned_epochs == 8
        assert run.family == "LocalCharges"
        assert run.files.model("fine") == folder / "water_fine.model.safetensors"


def test_a_run_with_folders_of_its_own_is_found_by_its_configuration(tmp_path):
    work = make_run(tmp_path / "run")
    (work / "results").rename(tmp_path / "elsewhere")
    folders = {"work_dir": str(work), "results_dir": str(tmp_path / "elsewhere")}
    values = EXAMPLES | {"name": "water", "seed": 7} | folders
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert find_run(tmp_path / "config.yaml").tag == TAG
    with pytest.raises(RunError, match="results_dir of its own, name its configuration"):
        find_run(work)


def test_paths_that_mean_no_run_or_several_are_refused(folder, tmp_path):
    with pytest.raises(RunError, match="nowhere: no such folder, results file or configuration"):
        find_run(tmp_path / "nowhere")
    second = folder / "results/water_run-8_train.txt"
    second.write_bytes((folder / f"results/{TAG}_train.txt").read_bytes())
    with pytest.raises(RunError, match=r"2 runs.*water_run-7_train\.txt, results/water_run-8_t"):
        find_run(folder)
    assert find_run(second).seed == 8
    other = second.rename(folder / "other.txt")
    with pytest.raises(RunError, match=r"expected a file named <name>_run-<seed>_train\.txt"):
        find_run(other)


def make_committee(work: Path, size: int) -> None:
    """The description of a committee."""
    data = DataDigests(training="a", validation="b")
    CommitteeFile(version="0", name="water", size=size, split_seed=7, data=data).write(work)


def test_a_committee_is_the_runs_of_its_members(tmp_path):
    work = tmp_path / "committee"
    for number in (1, 2, 10):
        make_run(work / f"member-{number}")
    make_run(work / "member-11")  # of an earlier, larger committee
    make_committee(work, size=10)
    for path in (work, work / "committee.json"):
        members = [run.files.work.name for run in find_runs(path)]
        assert members == ["member-1", "member-2", "member-10"]
    (single,) = find_runs(work / "member-2")
    assert single.files.work == work / "member-2"


def test_a_committee_with_folders_of_its_own_is_found_by_its_configuration(tmp_path):
    work = tmp_path / "committee"
    (make_run(work / "member-1") / "results").rename(tmp_path / "member-1")
    make_committee(work, size=2)
    folders = {"work_dir": str(work), "results_dir": str(tmp_path)}
    values = EXAMPLES | {"name": "water", "seed": 7} | folders
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    (member,) = find_runs(tmp_path / "config.yaml")
    assert member.files.results == tmp_path / f"member-1/{TAG}_train.txt"
    with pytest.raises(RunError, match="a committee, but no results of a member; if it has a res"):
        find_runs(work)


def test_a_run_without_model_says_when_it_is_written(folder):
    with pytest.raises(
        RunError, match=r"water_fine\.model\.safetensors: no such model file; it is"
    ):
        find_run(folder).model()


def test_the_log_tells_facts_labels_compilations_and_warnings_once(folder):
    log = find_run(folder).log
    assert log.facts["parameters"] == "1234"
    assert log.facts["device"] == "cpu (cpu)"
    assert log.options["batch_size"] == 2
    assert log.labels["Training set"] == {"energy": "8", "forces": "8"}
    rows = ("|  | structures | energy |", "| train | 8 | 7 |")
    table = "\n".join(("Structures, and how many of them have each label", *rows))
    path = folder / "later.log"
    path.write_text(f"2026-01-02 03:04:05.678 INFO: {table}\n2026-01-02 03:04:05.679 INFO: Done\n")
    assert read_log(path).labels == {"train": {"structures": "8", "energy": "7"}}
    assert log.labels["Validation set"] == {"energy": "1", "forces": "1"}
    assert [(entry.step, entry.seconds) for entry in log.compiled] == [
        ("training step", 8.9),
        ("loss", 0.2),
    ]
    assert log.warnings == ["WARNING: Option 'swa' has no effect"]
    assert (log.processes, log.started) == (1, "2026-01-02 03:04:05.678")
