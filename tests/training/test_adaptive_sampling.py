"""Sampling by the errors of structures: what is drawn, and that a resumed run draws the same."""

import jax
import numpy as np
import pytest
from tiny_system import predict, tiny_batches, tiny_data
from tiny_training import STAGES, Recorder, trainer

from mace_scf_jax.training.loop.sampling import draws, error_weighted
from mace_scf_jax.training.loop.schedule import read_schedule

BATCHES = tiny_batches()
STRUCTURES = 2 * len(BATCHES)
"""Two in each batch."""


def adaptive(seen):
    """Whole batches drawn by the losses of their structures, which are noted."""

    def epoch(number, *, start=0, losses=None):
        seen[number] = losses
        shares = losses.reshape(len(BATCHES), 2).sum(axis=1)
        order = draws(error_weighted(shares), np.random.default_rng(number))
        return [BATCHES[index] for index in order[start:]]

    return tiny_data(
        BATCHES, training=epoch, sampled=lambda: BATCHES, sampled_structures=STRUCTURES
    )


class Killed(BaseException):
    pass


class KillAt(Recorder):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def step_done(self, record):
        super().step_done(record)
        if len(self.steps) == self.step:
            raise Killed


def test_losses_of_structures_are_those_of_the_last_evaluation(tmp_path):
    seen = {}
    run = trainer(tmp_path, data=adaptive(seen), eval_interval=2)
    run.run(STAGES[:1], fingerprint={})
    assert not seen[0].any()
    assert (seen[1] > 0.0).all()
    np.testing.assert_array_equal(seen[1], seen[2])
    assert not np.array_equal(seen[2], seen[3])
    losses = np.asarray(run.state.structure_losses)
    total = run.validator.evaluate(run.state.average, BATCHES, STAGES[0]).loss
    assert losses.mean() == pytest.approx(total, rel=1e-12)


def test_structures_of_large_error_count_with_roots_too(tmp_path):
    """Shares in the loss are those of squared errors: √ of them goes with the error."""
    (stage,) = read_schedule(
        {0: {"name": "a", "start": 0, "end": 0, "lr": 0.0, "force_weight": 1.0}}
    )
    run = trainer(tmp_path, data=adaptive({}))
    run.run([stage], fingerprint={})
    squares = []
    for graph in BATCHES:
        predicted = predict(run.state.parameters, graph, forces=True, stress=False)["forces"]
        errors = np.sum((graph.labels["forces"] - predicted) ** 2, axis=1)
        squares += [errors[:3].sum(), errors[3:6].sum()]
    pairs = np.reshape(squares, (-1, 2))
    expected = 2 * pairs / (2 * 18 * np.sqrt(pairs.sum(axis=1, keepdims=True) / 18))
    np.testing.assert_allclose(run.state.structure_losses, expected.ravel(), rtol=1e-9)


@pytest.mark.parametrize(
    ("step", "seconds"), [(7, 0.0), pytest.param(19, 1e9, marks=pytest.mark.slow)]
)
def test_a_resumed_run_draws_the_same(tmp_path, step, seconds):
    whole = trainer(tmp_path / "whole", data=adaptive({}))
    progress = whole.run(STAGES, fingerprint={})
    options = {"data": adaptive({}), "checkpoint_seconds": seconds}
    with pytest.raises(Killed):
        trainer(tmp_path / "killed", observer=KillAt(step), **options).run(STAGES, fingerprint={})
    resumed = trainer(tmp_path / "killed", **options)
    assert resumed.run(STAGES, fingerprint={}) == progress
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b, strict=True), resumed.state, whole.state
    )
