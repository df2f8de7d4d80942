"""Compiled functions are kept for later runs, in a folder of the user, or nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from mace_scf_jax_cli.main import prepare_jax
prepare_jax(keeps_compiled="--no_compilation_cache" not in sys.argv)
from mace_scf_jax import compilation_cache, runtime
compilation_cache.SETTINGS["jax_persistent_cache_min_compile_time_secs"] = 0.0
runtime.prepare_command()
import jax
import jax.numpy as jnp
counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.split("/")[-1]
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(count)
x = jnp.arange(1.0, 65.0).reshape(8, 8)
print(repr(float(jax.jit(lambda x: jnp.exp(-x @ x.T / 1e3).sum())(x))), *counts.values())
"""


@pytest.fixture
def start(tmp_path):
    """Start the program for a user with a folder of caches of his own."""

    def start(*words: str, caches: Path | None = None) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TF_"))}
        environment |= {
            "XDG_CACHE_HOME": str(caches or tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = (sys.executable, "-c", PROGRAM, *words)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    return start


def result(process: subprocess.Popen) -> tuple[str, int, int, str]:
    """The number that was computed, functions that were read and written, messages."""
    printed, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    number, read, written = printed.split()
    return number, int(read), int(written), messages


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the folder is that of Linux")
def test_a_later_run_reads_what_runs_at_the_same_time_have_compiled(start, tmp_path):
    first, second = map(result, [start(), start()])
    assert first[0] == second[0]
    assert max(first[2], second[2]) > 0  # either may be later at every function
    number, read, written, messages = result(start())
    assert (number, written, messages) == (first[0], 0, "")
    assert read == first[1] + first[2]
    (folder,) = (tmp_path / "mace-scf-jax" / "compiled").iterdir()
    assert folder.stat().st_mode & 0o077 == 0

    for entry in folder.glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:100])
    number, read, written, messages = result(start())
    assert (number, read) == (first[0], 0)
    assert "Error reading persistent compilation cache entry" in messages

    for entry in folder.glob("*-atime"):  # as if a process had been killed while it wrote
        entry.unlink()
    assert result(start())[1:] == (0, first[1] + first[2], "")
    assert result(start())[1:] == (first[1] + first[2], 0, "")


def test_without_a_folder_to_write_to_everything_is_compiled_and_one_line_says_so(start, tmp_path):
    (tmp_path / "file").touch()
    _, read, written, messages = result(start(caches=tmp_path / "file"))
    assert (read, written) == (0, 0)
    assert "compiled functions are not kept for later runs: " in messages


def test_a_switch_keeps_nothing(start, tmp_path):
    assert result(start("--no_compilation_cache"))[1:] == (0, 0, "")
    assert list(tmp_path.iterdir()) == []
