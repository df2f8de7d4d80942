"""Weights & Biases and TensorBoard get the numbers of a run; fakes stand in for both packages."""

import importlib
import importlib.util
import types

import pytest

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.option_reference import EXAMPLES
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.observer import EvaluationRecord, FinalErrors, StepRecord
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.watching import Watched
from mace_scf_jax.training.optimise.learning_rates import start_of_stage
from mace_scf_jax.training.records import tracking

STAGE = Stage(name="a", start=0, end=1, loss={"forces": 1.0}, lr=0.02)
METRICS = {"rmse_f": 0.1, "rmse_e_per_atom": 0.01, "rel_rmse_f": 3.0, "mae_f": 0.05}


class FakeRun:
    def __init__(self, **given):
        self.given, self.logged, self.metrics, self.finished = given, [], [], False

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, numbers):
        self.logged.append(numbers)

    def finish(self):
        self.finished = True


class FakeHistogram:
    def __init__(self, np_histogram):
        self.counts, self.edges = np_histogram


class FakeWriter:
    def __init__(self, folder):
        self.folder, self.scalars, self.closed = folder, [], False

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture
def services(monkeypatch):
    """Fakes of both packages; holds what they have opened."""
    opened = types.SimpleNamespace()

    def start(**given):
        opened.run = FakeRun(**given)
        return opened.run

    def write(folder):
        opened.writer = FakeWriter(folder)
        return opened.writer

    fakes = {
        "wandb": types.SimpleNamespace(init=start, Histogram=FakeHistogram),
        "tensorboardX": types.SimpleNamespace(SummaryWriter=write),
    }
    monkeypatch.setattr(
        tracking,
        "importlib",
        types.SimpleNamespace(import_module=fakes.get, util=importlib.util),
    )
    return opened


def options(**more) -> TrainOptions:
    return TrainOptions(**EXAMPLES | {"seed": 5, "work_dir": "out"} | more)


def opened_by(given: TrainOptions):
    return tracking.trackers(given, tag=given.tag, work_dir=given.work_dir)


def tell(observer) -> None:
    """What happens in an epoch of two steps, and at the end."""
    observer.epoch_started(STAGE, Progress(learning_rates=start_of_stage(STAGE)))
    for number, loss in enumerate((3.0, 1.0)):
        observer.step_done(StepRecord("a", 4, number, number, loss, {}, 0.1, 1.0, False))
    for name in ("valid", "ice"):
        observer.evaluated(EvaluationRecord("a", 4, name, 0.5, METRICS, 0.1, True))
    observer.finally_evaluated(FinalErrors("a", 4, {"train": METRICS, "valid": {"rmse_f": 0.2}}))


def test_the_numbers_of_an_evaluation_and_of_the_end():
    logged = []
    log = types.SimpleNamespace(log=lambda numbers, epoch: logged.append((epoch, dict(numbers))))
    tell(tracking.ScalarTracker(log))
    assert logged == [
        (
            4,
            {
                "epoch": 4.0,
                "lr": 0.02,
                "train_loss": 2.0,
                "valid_loss": 0.5,
                "valid_rmse_f": 0.1,
                "valid_rmse_e_per_atom": 0.01,
                "valid_rel_rmse_f": 3.0,
                "valid_mae_f": 0.05,
            },
        ),
        (
            4,
            {
                "epoch": 4.0,
                "lr": 0.02,
                "ice_loss": 0.5,
                "ice_rmse_f": 0.1,
                "ice_rmse_e_per_atom": 0.01,
                "ice_rel_rmse_f": 3.0,
                "ice_mae_f": 0.05,
            },
        ),
        (
            4,
            {
                "train_final_rmse_e_per_atom": 0.01,
                "train_final_rmse_f": 0.1,
                "train_final_rel_rmse_f": 3.0,
                "valid_final_rmse_f": 0.2,
            },
        ),
    ]


def test_weights_and_biases(services):
    given = options(wandb=True, wandb_project="water", wandb_log_hypers="[r_max, seed]")
    with opened_by(given) as (observer,):
        tell(observer)
        assert not services.run.finished
    run = services.run
    assert run.finished
    assert run.given == {
        "project": "water",
        "entity": None,
        "name": "my_model_run-5",
        "dir": "out",
        "config": {"r_max": 5.0, "seed": 5},
    }
    assert run.metrics == [("*", "epoch")]
    assert [numbers["epoch"] for numbers in run.logged] == [4, 4, 4]
    assert run.logged[0]["valid_rmse_f"] == 0.1


def watched_step(step) -> StepRecord:
    histograms = {"gradients/embedding": ([2.0, 1.0], [0.0, 0.5, 1.0])}
    watched = Watched(step, {"grad/global_norm": 2.0}, histograms)
    return StepRecord("a", 4, 0, 0, 1.0, {}, 0.1, 1.0, False, watched=watched)


def test_a_closer_look_is_logged_at_its_step(services):
    with opened_by(options(wandb=True, tensorboard=True)) as observers:
        for observer in observers:
            observer.step_done(watched_step(50))
            observer.step_done(watched_step(100))
    run = services.run
    assert sorted(run.metrics[1:]) == [
        ("grad/global_norm", "step"),
        ("gradients/embedding", "step"),
    ]
    assert [numbers["step"] for numbers in run.logged] == [50, 100]
    logged = run.logged[1]
    assert (logged["grad/global_norm"], logged["epoch"]) == (2.0, 4)
    assert logged["gradients/embedding"].counts == [2.0, 1.0]
    assert logged["gradients/embedding"].edges == [0.0, 0.5, 1.0]
    # TensorBoard gets the numbers alone
    steps = (50, 100)
    assert services.writer.scalars == [("grad/global_norm", 2.0, step) for step in steps]


def test_all_options_are_shown_unless_some_are_chosen(services):
    with opened_by(options(wandb=True, wandb_name="mine", wandb_dir="there")):
        pass
    assert services.run.given["name"] == "mine"
    assert services.run.given["dir"] == "there"
    assert set(services.run.given["config"]) == set(TrainOptions.model_fields)


def test_tensorboard_is_closed_also_after_an_error(services):
    def run_that_fails():
        with opened_by(options(tensorboard=True)) as (observer,):
            tell(observer)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run_that_fails()
    assert services.writer.folder == "out/tensorboard/my_model_run-5"
    assert ("valid_rmse_f", 0.1, 4) in services.writer.scalars
    assert services.writer.closed


def test_nothing_is_opened_unless_asked_for(services):
    with opened_by(options()) as opened:
        assert opened == ()
    assert vars(services) == {}


def test_a_missing_package_is_told_first(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracking.check_installed(options())
    with pytest.raises(ConfigurationError) as told:
        tracking.check_installed(options(wandb=True, tensorboard=True))
    assert "option 'wandb': the package wandb is not installed" in str(told.value)
    assert "pip install tensorboardX" in str(told.value)


def test_unknown_options_to_show_are_refused():
    with pytest.raises(ConfigurationError, match="wandb_log_hypers: unknown option 'rmax'; did"):
        options(wandb_log_hypers=["rmax"])
