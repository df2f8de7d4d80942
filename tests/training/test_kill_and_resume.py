import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tiny_training import STAGES, trainer

from mace_scf_jax.training.checkpoints import CheckpointStore, read_checkpoint

PROGRAM = Path(__file__).with_name("tiny_training.py")
KILLS = 2


def run_until(folder, step):
    """Run the program; kill it shortly after it has done that many steps, or let it finish."""
    python_path = [str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")]
    with (
        (folder / "errors.txt").open("a") as errors,
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder / "checkpoints"), str(folder / "result")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path)},
        ) as process,
    ):
        done = 0
        for line in process.stdout:
            done += line.startswith("step")
            if done == step:
                time.sleep(random.uniform(0.0, 0.02))
                process.send_signal(signal.SIGKILL)
                break
    return process.returncode


def assert_same_file(found, expected):
    arrays, record = read_checkpoint(found)
    expected_arrays, expected_record = read_checkpoint(expected)
    assert record == expected_record
    assert arrays.keys() == expected_arrays.keys()
    for name, values in expected_arrays.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name, strict=True)


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    for _ in range(KILLS):
        assert run_until(tmp_path, random.randint(1, 12)) == -signal.SIGKILL
    assert run_until(tmp_path, None) == 0, (tmp_path / "errors.txt").read_text()[-3000:]

    whole = trainer(tmp_path / "whole")
    progress = whole.run(STAGES, fingerprint={"data": "tiny"})
    CheckpointStore(tmp_path, "whole").save(whole.state, progress, {})
    assert_same_file(
        tmp_path / "result" / "final_resume.safetensors", tmp_path / "whole_resume.safetensors"
    )
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*_epoch-*"))
    assert kept == sorted(progress.kept.values())
    for name in kept:
        assert_same_file(tmp_path / "checkpoints" / name, tmp_path / "whole" / name)
