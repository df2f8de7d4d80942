"""``mace-scf-jax md``: files, restart, bad input refused before anything is written."""

import argparse
import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from ase.io import read, write
from labelled_water import water
from tiny_models import tiny_model

from mace_scf_jax.predict.committee import (
    CommitteeFile,
    DataDigests,
    MemberEntry,
    load_committee,
)
from mace_scf_jax.predict.surplus import SurplusChargeWarning
from mace_scf_jax_cli.arguments import add_input_arguments, set_inputs
from mace_scf_jax_cli.main import main

NVT = "--ensemble nvt --temperature 100 --timestep 0.2 --friction 10"


@pytest.fixture
def folder(folder):
    """A folder with a model and two structures."""
    write("start.xyz", [water(1), water(0)], format="extxyz")
    return folder


def md(words: str) -> int:
    return main(["md", "model", "start.xyz", *shlex.split(words)])


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_and_its_continuation_are_one_run(folder, capsys):
    with pytest.warns(SurplusChargeWarning, match=r"charges beyond .* \(said once\)") as warned:
        assert md(f"{NVT} --steps 10 --every 4 --output whole.xyz --plot") == 0
    assert [entry.category for entry in warned].count(SurplusChargeWarning) == 1
    shown = capsys.readouterr().out
    assert "Q/e" in shown
    assert "Wrote whole.xyz, whole.csv, whole.state.safetensors, whole.png" in shown
    frames, log = read("whole.xyz", ":"), rows("whole.csv")
    assert [frame.info["step"] for frame in frames] == [0, 4, 8, 10]
    assert [row["step"] for row in log] == ["0", "4", "8", "10"]
    np.testing.assert_allclose(frames[0].positions, water(0).positions)
    assert "REF_energy" not in frames[0].info
    for frame, row in zip(frames, log, strict=True):
        assert frame.get_potential_energy() == pytest.approx(float(row["potential_energy_eV"]))
        assert frame.get_kinetic_energy() == pytest.approx(float(row["kinetic_energy_eV"]))
        assert row["pressure_bar"] == row["volume_A3"] == ""
    conserved = [float(row["conserved_energy_eV"]) for row in log]
    np.testing.assert_allclose(conserved, conserved[0], atol=1e-4)
    assert np.ptp([float(row["temperature_K"]) for row in log]) > 1.0
    assert (folder / "whole.png").read_bytes().startswith(b"\x89PNG")

    assert md(f"{NVT} --steps 4 --every 4 --output part.xyz") == 0
    with open("part.xyz", "a") as file:
        file.write("3\na frame that was cut off")
    assert md(f"{NVT} --steps 10 --every 4 --output part.xyz --restart") == 0
    assert [frame.info["step"] for frame in read("part.xyz", ":")] == [0, 4, 8, 10]
    last, expected = read("part.xyz"), frames[-1]
    np.testing.assert_allclose(last.positions, expected.positions, atol=1e-7)
    np.testing.assert_allclose(last.get_momenta(), expected.get_momenta(), atol=1e-7)
    np.testing.assert_allclose(last.get_forces(), expected.get_forces(), atol=1e-6)


def test_frames_and_lines_at_intervals_of_their_own_in_formats_of_ase(folder, capsys):
    write("start.traj", water(0))
    words = f"{NVT} --every 4 --log_every 3 --fixed O --output run.traj"

    def continued(rest: str) -> int:
        return main(["md", "model", "start.traj", *shlex.split(f"{words} {rest}")])

    assert continued("--steps 5") == continued("--steps 9 --restart") == 0
    frames = read("run.traj", ":")
    assert [frame.info["step"] for frame in frames] == [0, 4, 5, 8, 9]
    assert [row["step"] for row in rows("run.csv")] == ["0", "3", "5", "6", "9"]
    oxygen = water(0).symbols == "O"
    moved = np.abs(frames[-1].positions - water(0).positions).max(axis=1)
    np.testing.assert_array_equal(moved > 0.0, ~oxygen)
    charges = [frame.get_charges() for frame in frames]
    assert np.shape(charges) == (5, 3)
    capsys.readouterr()
    assert main(["md", "model", "start.traj", *shlex.split(f"{NVT} --restart --output run.traj"),
                 "--steps", "20"]) == 2  # fmt: skip
    assert "restart, fixed: found none, expected 0 xyz as before" in capsys.readouterr().err
    assert main(["md", "model", "no.traj", *shlex.split(f"{NVT} --steps 2 --output new.xyz")]) == 2
    assert "no.traj: no such file" in capsys.readouterr().err
    (folder / "start.cif").write_text("data_nothing")
    assert main(["md", "model", "start.cif", *shlex.split(f"{NVT} --steps 2 --output n.xyz")]) == 2
    assert "start.cif: found no structures" in capsys.readouterr().err


def test_a_run_that_blows_up_keeps_its_last_good_step_and_tells_what_helps(folder, capsys):
    hot = "--ensemble nve --temperature 1e6 --timestep 20 --steps 100"
    assert md(f"{hot} --output hot.xyz --plot") == 2
    error = capsys.readouterr().err
    for part in (
        "an atom would move by more than 1 Å in one step",
        "is the last frame of hot.xyz",
        "a shorter time step than 20 fs",
        "pair_repulsion: true",
        "a committee",
    ):
        assert part in error
    last = read("hot.xyz")
    assert f"The last good step, {last.info['step']}, is" in error
    assert (folder / "hot.png").exists()


def write_committee(folder: Path, family: str = "LocalCharges") -> None:
    """Two models that disagree."""
    for number in (1, 2):
        tiny_model(family, seed=number).save(folder / f"{number}.model.safetensors")
    CommitteeFile(
        version="0",
        name="x",
        size=2,
        split_seed=1,
        data=DataDigests(training="0", validation="1"),
        members=tuple(
            MemberEntry(number=number, seed=number, models={"a": f"{number}.model.safetensors"})
            for number in (1, 2)
        ),
    ).write(folder)


def test_a_committee_that_disagrees_stops_the_run(folder, capsys):
    """Its last step is the last frame of what is made of the trajectory in the end."""
    write_committee(folder, "ScaleShiftMACE")
    spread = load_committee(folder).predict(water(0)).std["forces"]
    largest = 1.02 * np.linalg.norm(spread, axis=1).max()
    words = "--ensemble nve --temperature 300 --steps 500 --every 200 --output run.pdb"
    words += f" --stop_uncertainty {largest}"
    assert main(["md", ".", "start.xyz", *shlex.split(words)]) == 1
    shown = capsys.readouterr()
    assert "the members of the committee disagree about a force" in shown.err
    assert "Label the last frame and add it to the training set" in shown.err
    last = rows("run.csv")[-1]
    assert 0 < int(last["step"]) < 500
    assert float(last["force_uncertainty_eV_A"]) <= largest
    assert len(read("run.pdb", ":")) == len(read("run.traj", ":")) == len(rows("run.csv"))


@pytest.mark.slow
def test_a_committee_moves_by_its_mean(folder, capsys):
    write_committee(folder)

    def of_committee(words: str) -> int:
        return main(["md", ".", "start.xyz", *shlex.split(f"{NVT} --every 4 {words}")])

    assert of_committee("--steps 4") == of_committee("--steps 8 --restart") == 0
    frames = read("trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 4, 8]
    # The file has eight digits.
    expected = load_committee(folder).predict(frames[-1])
    assert frames[-1].get_potential_energy() == pytest.approx(expected.mean["energy"], abs=1e-5)
    assert frames[-1].info["energy_std"] == pytest.approx(expected.std["energy"], abs=1e-5)
    np.testing.assert_allclose(frames[-1].get_forces(), expected.mean["forces"], atol=1e-5)
    np.testing.assert_allclose(frames[-1].arrays["forces_std"], expected.std["forces"], atol=1e-5)
    spread = float(rows("trajectory.csv")[-1]["force_uncertainty_eV_A"])
    assert spread == pytest.approx(np.linalg.norm(expected.std["forces"], axis=1).max(), abs=1e-5)
    capsys.readouterr()
    assert of_committee(f"--steps 400 --restart --stop_uncertainty {1.01 * spread}") == 1
    assert "Label the last frame and add it to the training set" in capsys.readouterr().err
    assert of_committee("--steps 900 --restart --aggregation reference") == 2
    assert "restart: the model file is not the one of the state" in capsys.readouterr().err
    assert md(f"{NVT} --steps 12 --overwrite --aggregation reference") == 2
    assert "--aggregation: expected the folder of a committee" in capsys.readouterr().err
    tiny_model(seed=3).save(folder / "2.model.safetensors")
    assert of_committee("--steps 900 --restart") == 2
    assert "restart: the model file is not the one of the state" in capsys.readouterr().err
    (folder / "committee.json").unlink()
    assert of_committee("--steps 12 --overwrite") == 2
    assert "expected a folder with committee.json, found none" in capsys.readouterr().err


def test_the_multiplicity_of_a_simulation(folder, capsys):
    assert md(f"{NVT} --steps 2 --multiplicity 2") == 2
    assert "--total_spin: expected a model that reads the multiplicity" in capsys.readouterr().err
    parser = argparse.ArgumentParser()
    add_input_arguments(parser)
    atoms = water(0)
    set_inputs(atoms, tiny_model("PolarMACE"), parser.parse_args(["--multiplicity", "3"]))
    assert atoms.info["total_spin"] == 3.0


def test_bad_input_is_refused(folder, capsys):
    good = f"{NVT} --steps 2"
    gold = water(0)
    gold.symbols[0] = "Au"
    write("gold.xyz", gold, format="extxyz")
    (folder / "trajectory.xyz").write_text("kept")
    for words, expected in (
        (f"{good} --output there.txt", "found suffix '.txt', of which ASE knows no format"),
        (f"{good} --output there.gen", "files of the format gen hold one structure"),
        (f"{good} --output no/there.xyz", "no/there.xyz: no such folder"),
        (good, "trajectory.xyz: exists already; go on with --restart"),
        (f"{good} --output new.xyz --restart", "new.state.safetensors: no such file"),
        (f"{good} --restart --overwrite", "found both --restart and --overwrite"),
        ("--ensemble nvt --steps 2 --output new.xyz", "ensemble nvt needs a temperature"),
        ("--ensemble nve --steps 2 --output new.xyz", "neither momenta in the structure nor"),
        ("--ensemble mvt --steps 2 --output new.xyz", "ensemble: found 'mvt', expected nve"),
        (
            "--ensemble npt --temperature 9 --steps 2 --output new.xyz",
            "periodic in three directions, found pbc FFF",
        ),
        (f"{good} --output new.xyz --skin 0", "skin: found 0.0, expected a positive length"),
    ):
        assert md(words) == 2, words
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: "), error
        assert expected in error
    assert main(["md", "model", "gold.xyz", *shlex.split(f"{good} --output new.xyz")]) == 2
    assert "found element Au, unknown to the model" in capsys.readouterr().err
    assert (folder / "trajectory.xyz").read_text() == "kept"
    assert not list(folder.glob("new*"))


def test_a_state_of_something_else_is_not_gone_on_from(folder, capsys):
    """States that do not fit are refused before anything is compiled."""
    record = {
        "steps_done": 5,
        "heat": 0.0,
        "settings": {
            "ensemble": "nvt",
            "timestep": 0.2,
            "temperature": 100.0,
            "friction": 10.0,
            "pressure": 1.0,
            "relaxation_time": 1.0,
            "compressibility": 4.5e-5,
        },
        "model": "0" * 64,
        "trajectory_bytes": 10,
        "log_bytes": 10,
    }
    tensors = {
        "positions": water(0).positions,
        "momenta": np.zeros((3, 3)),
        "cell": np.eye(3),
        "key": np.zeros(2, np.uint32),
        "numbers": water(0).numbers,
    }

    def save(**changes):
        metadata = {"format": "mace-scf-jax simulation", "record": json.dumps(record)}
        safetensors.numpy.save_file(
            tensors | changes, folder / "trajectory.state.safetensors", metadata=metadata
        )

    def refused(words):
        assert md(f"{words} --restart") == 2
        return capsys.readouterr().err

    save()
    assert "restart: the model file is not the one of the state" in refused(f"{NVT} --steps 9")
    warmer = NVT.replace("100", "110")
    assert "temperature: found 110.0, expected 100.0" in refused(f"{warmer} --steps 9")
    save(numbers=np.array([8, 8, 1]))
    assert "found H2O, expected the atoms of the state, HO2" in refused(f"{NVT} --steps 9")
    (folder / "trajectory.state.safetensors").write_bytes(b"cut off")
    assert "not a complete state of a simulation" in refused(f"{NVT} --steps 9")
