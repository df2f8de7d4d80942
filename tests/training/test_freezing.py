"""Stages that freeze other parameters than the stage before."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tiny_training import LOSS, Recorder, trainer

from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings

RATE = 0.02


def stages(*freeze, epochs=1):
    return tuple(
        Stage(
            name=f"stage_{index}",
            start=index * epochs,
            end=(index + 1) * epochs - 1,
            loss=LOSS,
            lr=RATE,
            freeze=groups,
        )
        for index, groups in enumerate(freeze)
    )


class Embeddings(Recorder):
    """The embedding as it is when a step is told of."""

    def __init__(self):
        super().__init__()
        self.run, self.seen = None, []

    def step_done(self, record):
        self.seen.append(embedding(self.run.state.parameters))


def embedding(parameters):
    return np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves(parameters["backbone"]["embedding"])]
    )


@pytest.mark.parametrize(
    ("optimizer", "ema"), [("schedulefree", False), ("adam", True), ("sgd", True)]
)
def test_what_a_later_stage_freezes_is_what_was_evaluated(tmp_path, optimizer, ema):
    """Training goes on from what was kept, not from the latest weights."""
    run = trainer(tmp_path, optimiser=OptimiserSettings(optimizer=optimizer, ema=ema))
    schedule = stages((), ("embedding",))
    progress = run.run(schedule, fingerprint={})
    before, after = (run.best_parameters(progress, stage.name)[0] for stage in schedule)
    np.testing.assert_array_equal(embedding(after), embedding(before))
    np.testing.assert_array_equal(embedding(run.state.parameters), embedding(before))
    moved = jax.tree.map(np.array_equal, before, after)
    assert not all(jax.tree.leaves(moved))


@pytest.mark.parametrize("optimizer", ["adamw", "schedulefree"])
def test_what_a_later_stage_trains_begins_with_steps_of_the_usual_length(tmp_path, optimizer):
    """Moments that counted the steps of a frozen stage would allow several times the rate."""
    observer = Embeddings()
    settings = OptimiserSettings(optimizer=optimizer, amsgrad=False, beta=0.1, beta_two=0.9)
    observer.run = trainer(tmp_path, optimiser=settings, observer=observer)
    first = embedding(observer.run.state.parameters)
    observer.run.run(stages(("embedding",), (), epochs=8), fingerprint={})
    changes = np.max(np.abs(np.diff([first, *observer.seen], axis=0)), axis=1)
    frozen = len(observer.seen) // 2
    assert not changes[: frozen - 1].any()
    assert 0.0 < changes[frozen : frozen + 3].max() < 1.5 * RATE
