"""What a process shows of its work, and the account of what JAX compiles."""

import io
import time

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from mace_scf_jax import progress
from mace_scf_jax.compilations import Pace, compilations
from mace_scf_jax.progress import Bar, signs_of_life
from mace_scf_jax.training.loop import resuming
from mace_scf_jax.training.loop.observer import EvaluationRecord, StepRecord
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.records.reporting import ProgressBar

LONG = 0.3


def compile_for_long():
    """Compile a function whose trace takes `LONG`, within that of another function."""
    seen = []

    @jax.jit
    def inner(x):
        time.sleep(LONG)
        seen.append(compilations().under_way)
        return jnp.sin(x)

    jax.jit(lambda x: inner(x) + x)(1.0)
    return seen[0]


def test_the_time_to_compile_is_known_while_it_passes():
    before, begun = compilations().seconds, time.monotonic()
    under_way = compile_for_long()
    passed, counted = time.monotonic() - begun, compilations().seconds - before
    assert LONG <= under_way <= passed
    assert LONG <= counted <= passed
    assert compilations().under_way is not None  # until a pause
    time.sleep(0.3)
    assert compilations().under_way is None
    assert compilations().seconds == before + counted


def test_a_pace_leaves_out_the_time_to_compile():
    pace = Pace()
    pace.note(5)
    assert pace.rate is None
    compile_for_long()
    pace.note(15)
    assert pace.rate > 10 / LONG


def test_a_bar_tells_time_left_without_that_of_compiling():
    bar = Bar("structures", 100)
    time.sleep(0.2)
    compile_for_long()
    bar.update(50)
    assert 0.2 <= bar.left < 0.2 + LONG
    bar.start_at(60)
    assert bar.left is None
    assert bar.line().startswith("structures ━━━━━━━╌╌╌╌╌ 60/100  0:00:0")
    assert bar.line(ascii_only=True).startswith("structures #######..... 60/100")
    assert bar.plain_line().startswith("structures: 60 of 100")


@pytest.fixture
def impatient(monkeypatch):
    for name in ("INTERVAL", "SHOWN_AFTER", "FIRST_LINE"):
        monkeypatch.setattr(progress, name, 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_terminal_shows_bars_and_compilations():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with signs_of_life(console) as signs:
        compile_for_long()
        time.sleep(0.3)
        with signs_of_life() as inner, inner.bar("structures", 7) as bar:
            assert inner is signs
            bar.update(3)
            time.sleep(0.1)
    assert "compiling 0 s" in shown.getvalue()
    assert "3/7" in shown.getvalue()


@pytest.mark.usefixtures("impatient")
def test_elsewhere_there_are_lines_fewer_and_fewer():
    lines = []
    with signs_of_life(Console(file=io.StringIO()), lines.append) as signs:
        compile_for_long()
        time.sleep(0.3)
        with signs.bar("batches", 4, in_lines=False):
            time.sleep(0.1)
        with signs.bar("structures", 7) as bar:
            bar.update(3)
            time.sleep(0.1)
    assert lines[0] == "compiling 0 s"
    assert "compiled in 0 s" in lines
    assert not any("batches" in line for line in lines)
    assert lines[-1].startswith("structures: 3 of 7")
    assert 2 < len(lines) < 15


def test_a_training_fits_into_a_line():
    stages = (
        Stage(name="forces", start=0, end=499, loss={"forces": 1.0}, lr=0.1),
        Stage(name="energy", start=500, end=999, loss={"forces": 1.0}, lr=0.1),
    )
    bar = Bar("training")
    observer = ProgressBar(bar, stages, 55)
    observer.stage_started(stages[1], resuming.start(stages, 1))
    observer.step_done(StepRecord("energy", 500, 0, 0, 12.345, {"forces": 1.0}, 0.1, 1.0, False))
    metrics = {"rmse_e_per_atom": 0.1234, "rmse_f": 0.2345}
    observer.evaluated(EvaluationRecord("energy", 500, "valid", 1.0, metrics, 0.1, True))
    assert bar.line().startswith(
        "energy ━━━━━━╌╌╌╌╌╌ 27501/55000  epoch 500/999  loss 12.3  "
        "valid E 123.4 meV/atom F 234.5 meV/Å  0:00:0"
    )
    assert len(bar.line()) <= 120
    observer.stage_finished(stages[0], resuming.start(stages, 0))
    assert bar.done == 27500
