"""Several devices and several processes train what one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from devices_run import options

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.loop import devices
from mace_scf_jax.training.loop.checkpoints import read_checkpoint
from mace_scf_jax.training.loop.devices import join_processes, require_agreement

PROGRAM = Path(__file__).with_name("devices_run.py")
TWO_DEVICES = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
}
ROUND_OFF = 1e-12


def start(*words, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, words)],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def output(process: subprocess.Popen) -> str:
    said, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return said


def compare(folder: Path, setting: str) -> tuple[Path, str]:
    """The folder of runs on one device and on two, and what was printed."""
    return folder, output(start("compare", folder, setting, **TWO_DEVICES))


@pytest.fixture(scope="module")
def forces(tmp_path_factory) -> tuple[Path, str]:
    return compare(tmp_path_factory.mktemp("forces"), "forces")


@pytest.fixture(scope="module")
def self_consistent(tmp_path_factory) -> tuple[Path, str]:
    return compare(tmp_path_factory.mktemp("self_consistent"), "self_consistent")


def state(folder: Path) -> tuple[dict, dict]:
    return read_checkpoint(folder / "checkpoints/water_run-123_resume.safetensors")


def results(folder: Path) -> list[dict]:
    """What was written about steps, evaluations and, last, each set, but for the times."""
    lines = (folder / "results/water_run-123_train.txt").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    last = {record["set"]: record for record in records if record["mode"] == "final"}
    kept = [record for record in records if record["mode"] != "final"] + list(last.values())
    return [{name: value for name, value in r.items() if name != "time"} for r in kept]


def assert_same_run(folder: Path, reference: Path) -> None:
    arrays, record = state(folder)
    expected, expected_record = state(reference)
    assert set(arrays) == set(expected)
    for name, values in expected.items():
        scale = np.max(np.abs(values))
        np.testing.assert_allclose(
            arrays[name], values, rtol=0.0, atol=ROUND_OFF * scale, err_msg=name
        )
    assert record["fingerprint"] == expected_record["fingerprint"]
    assert_close(record["progress"], expected_record["progress"])
    assert_close(results(folder), results(reference))


def assert_close(found, expected) -> None:
    """Trees of plain values are the same, numbers to round-off."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-10)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "setting", ["forces", pytest.param("self_consistent", marks=pytest.mark.slow)]
)
def test_two_devices_train_like_one(request, setting):
    folder, _ = request.getfixturevalue(setting)
    assert_same_run(folder / "two", folder / "one")
    log = (folder / "two/logs/water_run-123.log").read_text()
    assert "Every batch is divided among 2 devices (processes: 1)" in log
    assert "each at most once per bucket" in log


def test_a_run_goes_on_with_another_number_of_devices(forces):
    log = (forces[0] / "two/logs/water_run-123.log").read_text()
    assert log.find("divided") > log.find("Epoch 0") > 0
    assert "Resuming from" in log


def test_options_that_ask_for_too_much_are_refused(forces):
    too_many, too_few = forces[1].splitlines()
    assert "'devices': asks for 3, JAX finds 2: cpu:0, cpu:1" in too_many
    assert "'batch_size': found 1, expected at least one structure for each of the 2" in too_few


@pytest.mark.slow
def test_two_processes_train_like_one(forces, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    options(tmp_path, "forces")  # writes the structures
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [start("join", tmp_path, **environment, JAX_PROCESS_ID=str(i)) for i in range(2)]
    for process in processes:
        output(process)
    assert_same_run(tmp_path, forces[0] / "one")
    for name in ("water_run-123", "water_run-123_rank1"):
        assert "INFO: Training complete" in (tmp_path / f"logs/{name}.log").read_text()
        assert "loss breakdown" in (tmp_path / f"logs/{name}_debug.log").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS.*these: JAX_NUM_PROCESSES=2"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "localhost:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "one",
            },
            "invalid literal.*'one'",
        ),
    ],
)
def test_processes_that_cannot_be_found_are_refused(monkeypatch, given, message):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        join_processes()


def test_a_process_that_nothing_tells_of_others_is_refused():
    """In a process of its own: JAX joins no others once it has computed anything."""
    code = "from mace_scf_jax.training.loop.devices import join_processes; join_processes()"
    hidden = {"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode != 0
    assert "cannot tell which processes there are" in process.stderr
    assert "found of these: none" in process.stderr


@pytest.mark.parametrize(("given", "expected"), [("2", 2), ("All", "all"), (1, 1)])
def test_numbers_of_devices(tmp_path, given, expected):
    assert options(tmp_path, "forces", devices=given).devices == expected


@pytest.mark.parametrize("given", ["0", 1.5, True, "some", -1])
def test_other_numbers_of_devices_are_refused(tmp_path, given):
    with pytest.raises(ConfigurationError, match="'devices': expected a whole number above 0 or"):
        options(tmp_path, "forces", devices=given)


def test_processes_that_were_not_started_alike_are_refused(monkeypatch):
    require_agreement({"epoch": 1})
    monkeypatch.setattr(devices, "rows_of_all_processes", lambda rows: np.append(rows, rows))
    require_agreement({"epoch": 1})
    monkeypatch.setattr(devices, "rows_of_all_processes", lambda rows: np.append(rows, rows + 1))
    with pytest.raises(ConfigurationError, match="different options, data or saved states"):
        require_agreement({"epoch": 1})
