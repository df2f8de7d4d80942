import json
import math
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.optimise.learning_rates import (
    LearningRateState,
    next_epoch,
    start_of_stage,
)
from mace_scf_jax.training.optimise.options import SchedulerOptions
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups

REFERENCE = np.load(
    Path(__file__).parents[1] / "data" / "reference" / "training" / "optimisers.npz"
)


def stage(**values):
    return Stage(name="a", start=0, end=1, loss={"forces": 1.0}, **values)


def test_plateau_equals_pytorch():
    meta = json.loads(str(REFERENCE["meta"]))["plateau"]
    settings = SchedulerOptions(
        scheduler="ReduceLROnPlateau", lr_factor=meta["factor"], scheduler_patience=meta["patience"]
    )
    state = start_of_stage(stage(lr=meta["lr"]))
    for loss, expected in zip(
        REFERENCE["in/plateau_losses"], REFERENCE["out/plateau_rates"], strict=True
    ):
        state = next_epoch(settings, state, float(loss))
        assert state.rates == pytest.approx(dict.fromkeys(parameter_groups(), expected), rel=1e-12)


def test_rates_stop_at_the_smallest_one():
    """As min_lr of PyTorch: a rate is never reduced below it, and one that is lower stays."""
    settings = SchedulerOptions(lr_factor=0.1, scheduler_patience=0, scheduler_min_lr=3e-4)
    state = start_of_stage(stage(lr=0.01, group_lrs={"embedding": 1e-4}))
    found = []
    for _ in range(4):
        state = next_epoch(settings, state, math.inf)
        found.append((state.rates["readouts"], state.rates["embedding"]))
    assert found == [pytest.approx(pair) for pair in ((1e-3, 1e-4), *3 * [(3e-4, 1e-4)])]


def test_exponential_scales_every_group():
    settings = SchedulerOptions(scheduler="ExponentialLR", lr_scheduler_gamma=0.5)
    state = start_of_stage(stage(lr=0.1, group_lrs={"lr_source_maps": 0.4}))
    for _ in range(2):
        state = next_epoch(settings, state, math.inf)
    assert state.rates["embedding"] == pytest.approx(0.025)
    assert state.rates["lr_source_maps"] == pytest.approx(0.1)


def test_no_scheduler_keeps_the_rates():
    state = start_of_stage(stage(lr=0.1))
    assert next_epoch(None, state, 1.0) == state


def test_tiny_reductions_are_not_made():
    settings = SchedulerOptions(lr_factor=0.5, scheduler_patience=0)
    state = LearningRateState({"embedding": 1.5e-8})
    assert next_epoch(settings, state, math.inf).rates == {"embedding": 1.5e-8}


def test_unknown_group_is_refused():
    with pytest.raises(ValueError, match="group 'product': expected one of embedding"):
        start_of_stage(stage(group_lrs={"product": 0.1}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scheduler": "Cosine"},
            "scheduler: expected 'ReduceLROnPlateau' or 'ExponentialLR', found 'Cosine'",
        ),
        ({"lr_factor": 1.5}, "lr_factor: expected a number of at most 1, found 1.5"),
        ({"lr_scheduler_gamma": 0.0}, "lr_scheduler_gamma: expected a number above 0, found 0.0"),
        (
            {"scheduler_patience": -1},
            "scheduler_patience: expected a number of at least 0, found -1",
        ),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SchedulerOptions(**changes)
