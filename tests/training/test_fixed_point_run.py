"""Runs of a fixed-point model: files, reports, and resuming after an interruption."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write

from mace_scf_jax.predict.model import load_model
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.records.results_file import ResultLines
from mace_scf_jax.training.run import TrainingResult, train

EXAMPLE = Path(__file__).parents[2] / "examples/water_ions/fixed_point.yaml"


def water(index: int) -> Atoms:
    rng = np.random.default_rng(index)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    atoms = Atoms("OH2", positions=positions + rng.normal(scale=0.05, size=(3, 3)))
    atoms.set_cell([30.0, 30.0, 30.0])
    atoms.info.update(REF_energy=-2000.0 - index, total_charge=0.0, fermi_level=-6.0 + 0.1 * index)
    atoms.info.update(REF_dipole=rng.normal(size=3), config_dipole_weight=np.ones(3))
    atoms.info.update(external_field=np.zeros(3))
    atoms.arrays["REF_forces"] = rng.normal(size=(3, 3))
    charges = [[-0.6, 0.0, 0.1, 0.0], [0.3, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]]
    atoms.arrays["REF_atomic_multipoles"] = np.array(charges)
    return atoms


@dataclasses.dataclass
class FinishedRun:
    """A run that went through: its folder, result and compiled steps."""

    folder: Path
    complete: bool
    programs: Programs
    result: TrainingResult


def run_in(folder: Path, programs: Programs, *, complete: bool):
    """The example, with a smaller model and few epochs.

    What takes long to compile is left out unless it is complete: the first stage, second
    derivatives, which forces in the losses ask for, the solver with two methods, and the summary
    of convergence. Validation has the sizes of training, to compile nothing twice.
    """
    write(folder / "train.xyz", [water(index) for index in range(5)], format="extxyz")
    write(folder / "valid.xyz", [water(5), water(6)], format="extxyz")
    values = yaml.safe_load(EXAMPLE.read_text())
    direct, solved = values["train_schedule"].values()
    stages = {0: direct | {"start": 0, "end": 0}, 1: solved | {"start": 1, "end": 2}}
    if not complete:
        solved["loss"].pop("forces")
        solved["fixed_point_training_options"]["scf"]["solver"] = "dense"
        stages = {0: solved | {"start": 0, "end": 1}}
    smaller = {
        "name": "water",
        "seed": 123,
        "work_dir": folder,
        "train_file": folder / "train.xyz",
        "valid_file": folder / "valid.xyz",
        "hidden_irreps": "2x0e + 2x1o",
        "num_interactions": 1,
        "max_ell": 1,
        "correlation": 1,
        "num_radial_basis": 3,
        "radial_MLP": [4],
        "MLP_irreps": "2x0e",
        "r_max": 3.0,
        "kspace_cutoff_factor": 0.5,
        "field_feature_widths": [1.5],
        "field_readout_config": {"type": "LinearChargesEnergyReadout"},
        "batch_size": 2,
        "valid_batch_size": 2,
        "skip_scf_convergence_summary": not complete,
        "train_schedule": stages,
    }
    return train(TrainOptions(**(values | smaller)), programs=programs)


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["quick", "complete"],
)
def finished(request, tmp_path_factory):
    folder, programs = tmp_path_factory.mktemp("finished"), Programs()
    result = run_in(folder, programs, complete=request.param)
    return FinishedRun(folder, request.param, programs, result)


def test_what_a_run_says_and_learns(finished):
    folder, result = finished.folder, finished.result
    log = (folder / "logs/water_run-123.log").read_text()
    for expected in (
        "Computed Fermi level offset -5.8 eV from 5 structures",
        "Field feature norms (by order, then width): ",
        "Initial weights of the charge heads are multiplied by 0.01",
        "Compiled training step (implicit) for bucket 1",
        "Fixed-point training: {'mode': 'implicit'",
        "Final error table for stage self_consistent",
    ):
        assert expected in log
    for expected in (
        "Compiled training step (direct) for bucket 1",
        "SCF convergence summary\nstage: direct",
        "Constant-charge convergence",
    ):
        assert (expected in log) == finished.complete
    assert "not self-consistent" not in log
    records = [
        json.loads(line)
        for line in (folder / "results/water_run-123_train.txt").read_text().splitlines()
    ]
    steps = [record for record in records if record["mode"] == "opt"]
    assert all("scf" not in step for step in steps if step["stage"] == "direct")
    solved = [step["scf"] for step in steps if step["stage"] == "self_consistent"]
    assert len(solved) == 4
    assert all(counts["structures"] == 2 and counts["fallback"] == 0 for counts in solved)
    # charges are exact in the second stage only
    assert result.metrics["self_consistent"]["train"]["rmse_total_charge"] < 1e-5
    if finished.complete:
        assert result.metrics["direct"]["train"]["rmse_total_charge"] > 1e-4
    assert load_model(result.models["self_consistent"]).settings.own.fermi_level_offset == (
        pytest.approx(-5.8)
    )


def test_the_debug_log_has_the_steps_of_every_solution(finished):
    """As a script for logs of the reference reads them."""
    log = (finished.folder / "logs/water_run-123_debug.log").read_text()
    step = re.compile(r"DEBUG: step (\d+), .*abs_change\(s\)=([-+0-9.eE]+)")
    end = re.compile(r"DEBUG: SCF converged at step (\d+), .*abs_change\(s\)=([-+0-9.eE]+)")
    solutions, numbers = 0, []
    for line in log.splitlines():
        if found := step.search(line):
            numbers.append(int(found[1]))
            last = float(found[2])
        elif found := end.search(line):
            assert numbers == list(range(int(found[1]) + 1))
            # of all structures, also of those that ended before the last step
            assert last <= float(found[2]) < 1e-6
            solutions, numbers = solutions + 1, []
    # two epochs of two training batches and one of validation, then three and one of final errors
    assert solutions == 2 * (2 + 1) + 3 + 1


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(finished, tmp_path, monkeypatch):
    run = functools.partial(run_in, tmp_path, finished.programs, complete=finished.complete)
    step_done = ResultLines.step_done

    def interrupt(self, record):
        step_done(self, record)
        if (record.epoch, record.batch) == (1, 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultLines, "step_done", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    found = run()
    log = (tmp_path / "logs/water_run-123.log").read_text()
    assert "Resuming from" in log
    assert "Compiled training step" not in log  # the steps of the first run serve
    for stage, path in finished.result.models.items():
        old, new = load_model(path), load_model(found.models[stage])
        np.testing.assert_equal(new.parameters, old.parameters)
