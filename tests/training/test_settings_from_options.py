"""Options become the settings of optimiser, scheduler, loop and files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from train_options import options

from mace_scf_jax.training.loop.loop import LoopSettings
from mace_scf_jax.training.loop.watching import WatchSettings
from mace_scf_jax.training.optimise.learning_rates import SchedulerSettings
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.preparation import (
    loop_settings,
    optimiser_settings,
    scheduler_settings,
)
from mace_scf_jax.training.records.run_files import RunFiles

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
    "lr_scheduler_gamma": 0.9,
}
LOOP = {
    "eval_interval": 4,
    "patience": 9,
    "keep_checkpoints": True,
    "save_all_checkpoints": True,
}


def test_every_setting_of_the_optimiser_comes_from_its_option():
    given = optimiser_settings(options(**OPTIMISER, ema=True, ema_decay=0.9))
    assert {name: getattr(given, name) for name in OPTIMISER} == OPTIMISER
    assert given.ema_decay == 0.9
    assert optimiser_settings(options(ema_decay=0.9)) == OptimiserSettings()
    assert optimiser_settings(options(clip_grad="None")).clip_grad is None


def test_every_setting_of_the_scheduler_comes_from_its_option():
    given = scheduler_settings(options(optimizer="adam", **SCHEDULER))
    assert dataclasses.asdict(given) == SCHEDULER
    assert scheduler_settings(options(optimizer="adam")) == SchedulerSettings()


def test_schedulefree_uses_no_scheduler():
    assert scheduler_settings(options(**SCHEDULER)).scheduler is None


def test_every_setting_of_the_loop_comes_from_its_option():
    given = loop_settings(options(**LOOP))
    assert {name: getattr(given, name) for name in LOOP} == LOOP
    assert loop_settings(options()) == LoopSettings()


def test_what_is_looked_at_more_closely():
    given = {"wandb_watch": "all", "wandb_watch_log_freq": 7, "debug_log_grad_summary": True}
    everything = WatchSettings(summary=True, histograms="all", interval=7)
    assert loop_settings(options(wandb=True, **given)).watched == everything
    # histograms go to Weights & Biases alone
    assert loop_settings(options(**given)).watched == WatchSettings(summary=True, interval=7)
    # in YAML the word off is false
    assert options(wandb_watch=False).wandb_watch == "off"


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
