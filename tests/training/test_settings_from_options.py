"""Options become the settings of optimiser, scheduler, loop and files."""

from __future__ import annotations

from pathlib import Path

from train_options import options

from mace_scf_jax.training.config.options import topics
from mace_scf_jax.training.loop.options import WatchOptions
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.options import SchedulerOptions
from mace_scf_jax.training.records.run_files import RunFiles
from mace_scf_jax.training.settings import (
    optimiser_settings,
    scheduler_options,
    watch_options,
)

OPTIMISER = {
    "optimizer": "adamw",
    "beta": 0.8,
    "beta_two": 0.99,
    "weight_decay": 1e-3,
    "amsgrad": False,
    "clip_grad": 3.0,
}
SCHEDULER = {
    "scheduler": "ExponentialLR",
    "lr_factor": 0.5,
    "scheduler_patience": 7,
    "scheduler_min_lr": 1e-6,
    "lr_scheduler_gamma": 0.9,
}


def test_every_setting_of_the_optimiser_is_its_option():
    given = optimiser_settings(options(**OPTIMISER, ema=True, ema_decay=0.9))
    assert {name: getattr(given, name) for name in OPTIMISER} == OPTIMISER
    assert (given.ema, given.ema_decay) == (True, 0.9)
    assert optimiser_settings(options()) == OptimiserSettings()
    assert optimiser_settings(options(clip_grad="None")).clip_grad is None


def test_every_setting_of_the_scheduler_is_its_option():
    given = scheduler_options(options(optimizer="adam", **SCHEDULER))
    assert given.model_dump() == SCHEDULER | {"lr": 0.01}
    assert scheduler_options(options(optimizer="adam")) == SchedulerOptions()


def test_schedulefree_and_lbfgs_use_no_scheduler():
    assert scheduler_options(options(**SCHEDULER)) is None
    assert scheduler_options(options(optimizer="lbfgs", **SCHEDULER)) is None
    given = scheduler_options(options(optimizer="sgd"))
    assert given == SchedulerOptions()


def test_options_of_gradient_descent():
    given = optimiser_settings(options(optimizer="sgd", momentum=0.9))
    assert (given.optimizer, given.momentum) == ("sgd", 0.9)


def test_what_is_looked_at_more_closely():
    given = {"wandb_watch": "all", "wandb_watch_log_freq": 7, "debug_log_grad_summary": True}
    assert watch_options(options(wandb=True, **given)) == WatchOptions(**given)
    # histograms go to Weights & Biases alone
    assert watch_options(options(**given)) == WatchOptions(**given | {"wandb_watch": "off"})
    # in YAML the word off is false
    assert options(wandb_watch=False).wandb_watch == "off"


DECIDE_WEIGHTS = {
    *("seed", "default_dtype", "batch_size"),
    *("optimizer", "beta", "beta_two", "weight_decay", "amsgrad", "ema", "ema_decay", "clip_grad"),
    *("momentum", "lbfgs_memory", "scheduler", "lr_factor", "scheduler_patience"),
    *("scheduler_min_lr", "lr_scheduler_gamma"),
    *("sampling_policy", "force_fraction", "force_resample_epochs", "force_min_structures"),
    "force_scale_unbiased",
    *("start_from", "start_head", "start_elements", "start_charge"),
    *("new_elements", "lora", "replay"),
    *("dispersion", "dispersion_functional", "dispersion_cutoff"),
    *("fixedpoint_initial_charge_head_scale", "field_block_weight_decay"),
    "local_charges_weight_decay",
}


def test_options_that_decide_weights_besides_model_data_and_schedule():
    """An option is among them unless its group or its type says otherwise."""
    found = [name for topic in topics() for name in topic.deciding_weights()]
    assert sorted(found) == sorted(DECIDE_WEIGHTS)


def test_files_go_below_the_work_folder_unless_their_folder_is_given():
    files = RunFiles.of(options(work_dir="run", seed=7))
    assert files.log == Path("run/logs/water_run-7.log")
    assert files.debug_log == Path("run/logs/water_run-7_debug.log")
    assert files.results == Path("run/results/water_run-7_train.txt")
    assert files.checkpoints == Path("run/checkpoints")
    assert files.model("a") == Path("run/water_a.model.safetensors")
    given = {name: name for name in ("log_dir", "results_dir", "checkpoints_dir", "model_dir")}
    files = RunFiles.of(options(work_dir="run", **given))
    assert files.log == Path("log_dir/water_run-123.log")
    assert files.results == Path("results_dir/water_run-123_train.txt")
    assert files.checkpoints == Path("checkpoints_dir")
    assert files.model("a") == Path("model_dir/water_a.model.safetensors")
