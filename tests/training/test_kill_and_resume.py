"""A run that is killed at random moments and started again ends as one that was not.

By hand, more often than in the test: python tests/training/test_kill_and_resume.py --kills 20
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_training import stages, trainer

from mace_scf_jax.training.loop.checkpoints import CheckpointStore, read_checkpoint

PROGRAM = Path(__file__).with_name("tiny_training.py")
MOST_STEPS = 12
"""Steps that a run does before it is killed, at most."""


@contextlib.contextmanager
def program(folder, epochs):
    """The program that trains, running; its messages go to a file in the folder."""
    python_path = [str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")]
    words = [PROGRAM, folder / "checkpoints", folder / "result", epochs]
    with (
        (folder / "errors.txt").open("a") as errors,
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path)},
        ) as process,
    ):
        yield process


def kill_at_a_random_moment(folder, epochs):
    """Kill the program within its first seconds, or during or shortly after some step."""
    with program(folder, epochs) as process:
        steps = random.randint(0, MOST_STEPS)
        if steps == 0:
            moment = f"after {(seconds := random.uniform(0.0, 5.0)):.2f} s"
        else:
            moment = f"{1000 * (seconds := random.uniform(0.0, 0.05)):.0f} ms after {steps} steps"
            for _ in range(steps):
                if not process.stdout.readline():
                    break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    # 0: the run had come to its end before
    assert process.returncode in (-signal.SIGKILL, 0), messages(folder)
    return moment


def messages(folder):
    return (folder / "errors.txt").read_text()[-3000:]


def assert_same_file(found, expected):
    arrays, record = read_checkpoint(found)
    expected_arrays, expected_record = read_checkpoint(expected)
    assert record == expected_record
    assert arrays.keys() == expected_arrays.keys()
    for name, values in expected_arrays.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name, strict=True)


def assert_kills_change_nothing(folder, kills):
    """Kill a run that many times, let it finish, and compare with an uninterrupted run."""
    epochs = 1 + kills * MOST_STEPS // 8
    for number in range(kills):
        moment = kill_at_a_random_moment(folder, epochs)
        saved = CheckpointStore(folder / "checkpoints", "tiny_run-1").newest()
        reached = "nothing" if saved is None else f"epoch {saved.progress.epoch}"
        print(f"kill {number + 1} of {kills} {moment}; saved: {reached}", flush=True)
    with program(folder, epochs) as process:
        process.communicate()
    assert process.returncode == 0, messages(folder)

    whole = trainer(folder / "whole")
    progress = whole.run(stages(epochs), fingerprint={"data": "tiny"})
    CheckpointStore(folder, "whole").save(whole.state, progress, {})
    assert_same_file(
        folder / "result" / "final_resume.safetensors", folder / "whole_resume.safetensors"
    )
    kept = sorted(path.name for path in (folder / "checkpoints").glob("*_epoch-*"))
    assert kept == sorted(progress.kept.values())
    for name in kept:
        assert_same_file(folder / "checkpoints" / name, folder / "whole" / name)
    return int(whole.state.steps)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, kills):
    assert_kills_change_nothing(tmp_path, kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    wanted = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        steps = assert_kills_change_nothing(Path(name), wanted)
    print(f"{wanted} kills in {steps} steps: final state and kept files are the same, bit for bit")
