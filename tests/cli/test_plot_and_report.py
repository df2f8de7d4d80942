"""``mace-scf-jax plot`` and ``report`` on a training run that went through."""

import shutil
from pathlib import Path

import pytest
from ase.io import read

from mace_scf_jax.predict.committee import CommitteeFile, DataDigests
from mace_scf_jax.reports import parity
from mace_scf_jax.reports.parity import compare_sets
from mace_scf_jax.reports.pictures import draw
from mace_scf_jax.reports.training_run import find_run
from mace_scf_jax_cli.main import main

TAG = "water_run-123"


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the folder of the run, which is where the command was given."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def test_every_picture_becomes_a_file(run, tmp_path, capsys):
    output = tmp_path / "pictures"
    assert main(["plot", ".", "--output", str(output), "--format", "pdf"]) == 0
    names = (
        "learning_curves",
        "loss_balance",
        "parity_valid",
        "errors_by_type_valid",
        "parity_test",
        "errors_by_type_test",
    )
    expected = [str(output / f"{TAG}_{name}.pdf") for name in names]
    shown = capsys.readouterr()
    assert shown.out.splitlines() == expected
    assert {str(path) for path in output.iterdir()} == set(expected)
    assert shown.err == (
        f"{TAG}: left out: SCF convergence: nothing is solved self-consistently (LocalCharges)\n"
    )


def test_the_report_is_one_page(run, capsys):
    assert main(["report", "."]) == 0
    assert capsys.readouterr().out == f"{TAG}_report.html\n"
    page = (run / f"{TAG}_report.html").read_text()
    assert page.count("<img ") == 6
    assert "finished after 4 epochs" in page
    assert "Option &#x27;wandb_watch&#x27; has no effect" in page


def test_parity_is_that_of_the_final_errors(run):
    found = find_run(run)
    sets = compare_sets(found, found.model("a"))
    for name, part in (("valid", "valid"), ("test", "water")):
        compared = {entry.quantity.label: entry for entry in sets[name].comparisons}
        final = found.results.final["a"][part]
        assert compared["forces"].rmse == pytest.approx(final["rmse_f"], rel=1e-8)
        assert compared["energy"].rmse == pytest.approx(final["rmse_e_per_atom"], rel=1e-8)
    assert sets["test"].used == sets["test"].total == len(read(run / "test.xyz", ":"))


def test_of_large_sets_a_part_is_compared(run, monkeypatch):
    monkeypatch.setattr(parity, "MOST_STRUCTURES", 1)
    found = find_run(run)
    test = compare_sets(found, found.model())["test"]
    assert (test.used, test.total) == (1, 2)
    pictures = {picture.name: picture for picture in draw(found).drawn}
    assert "test set (1 of 2 structures)" in pictures["parity_test"].caption


def test_missing_structures_are_told(run, monkeypatch, capsys):
    (run / "train.xyz").unlink()
    monkeypatch.chdir(run.parent)
    assert main(["plot", "run", "--max-epoch", "2"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "left out: parity plots: train.xyz: no such file (train_file of the run)" in shown.err


def test_every_member_of_a_committee_is_drawn_and_reported(finished, tmp_path, capsys):
    for number in (1, 2):
        shutil.copytree(finished, tmp_path / f"com/member-{number}")
    data = DataDigests(training="a", validation="b")
    committee = CommitteeFile(version="0", name="water", size=2, split_seed=123, data=data)
    committee.write(tmp_path / "com")
    words = [str(tmp_path / "com"), "--no-parity"]
    assert main(["plot", *words]) == 0
    members = [tmp_path / f"com/member-{number}" for number in (1, 2)]
    assert capsys.readouterr().out.splitlines() == [
        str(member / f"plots/{TAG}_{name}.png")
        for member in members
        for name in ("learning_curves", "loss_balance")
    ]
    assert main(["report", *words]) == 0
    pages = [member / f"{TAG}_report.html" for member in members]
    assert capsys.readouterr().out.splitlines() == [str(page) for page in pages]
    assert all(page.is_file() for page in pages)
    assert main(["report", *words, "--output", str(tmp_path / "page.html")]) == 2
    assert f"or name the folder of a member, such as {members[0]}" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "nowhere: no such folder, results file or configuration"),
        ([".", "--min-epoch", "99"], "no epoch from 99 to None was evaluated"),
    ],
)
def test_bad_input_is_one_line(run, capsys, words, expected):
    for command in ("plot", "report"):
        assert main([command, *words]) == 2
        assert expected in capsys.readouterr().err
    assert not (run / "plots").exists()
