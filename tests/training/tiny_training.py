"""A training run on the tiny system; as a program, one that can be killed.

python tiny_training.py CHECKPOINTS RESULT EPOCHS: trains so many epochs per stage, prints a line
per step, writes the final state.
"""

import sys
from pathlib import Path

from tiny_system import TinyMode, tiny_batches, tiny_data, tiny_model

from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.loop import Trainer
from mace_scf_jax.training.loop.observer import Observer
from mace_scf_jax.training.loop.options import ValidationOptions
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.options import SchedulerOptions

LOSS = {"energy_per_atom": 1.0, "forces": 10.0, "atomic_multipoles": 1.0}


def stages(epochs):
    """Two stages of so many epochs each, of four steps."""
    second = {**LOSS, "forces": 100.0}
    return (
        Stage(name="first", start=0, end=epochs - 1, loss=LOSS, lr=0.02),
        Stage(
            name="second",
            start=epochs,
            end=2 * epochs - 1,
            loss=second,
            lr=0.002,
            group_lrs={"embedding": 0.0005},
        ),
    )


STAGES = stages(4)
TAG = "tiny_run-1"
MODE = TinyMode()
PROGRAMS = Programs()
"""Compiled steps, which all runs of a process share."""


class Recorder(Observer):
    def __init__(self):
        self.started, self.steps, self.evaluations, self.finished = [], [], [], []

    def stage_started(self, stage, progress):
        self.started.append((stage.name, progress.epoch))

    def step_done(self, record):
        self.steps.append(record)

    def evaluated(self, record):
        self.evaluations.append(record)

    def stage_finished(self, stage, progress):
        self.finished.append((stage.name, progress.epoch))


class PrintSteps(Observer):
    def step_done(self, record):
        print("step", record.epoch, record.batch, flush=True)


def trainer(
    folder, *, data=None, parameters=None, observer=None, optimiser=None, mode=MODE, **settings
):
    """A run with EMA, AMSGrad and a plateau scheduler that acts within the few epochs."""
    names = settings.keys() & ValidationOptions.model_fields.keys()
    validation = {name: settings.pop(name) for name in names}
    return Trainer(
        lambda stage: mode,
        tiny_model() if parameters is None else parameters,
        tiny_data(tiny_batches()) if data is None else data,
        optimiser=OptimiserSettings(optimizer="adam", ema=True, ema_decay=0.9)
        if optimiser is None
        else optimiser,
        scheduler=SchedulerOptions(scheduler_patience=0, lr_factor=0.5),
        validation=ValidationOptions(**validation),
        store=CheckpointStore(folder, TAG),
        observers=() if observer is None else (observer,),
        **{"checkpoint_seconds": 0.0, "programs": PROGRAMS} | settings,
    )


def main(checkpoints, result, epochs):
    run = trainer(Path(checkpoints), observer=PrintSteps())
    progress = run.run(stages(int(epochs)), fingerprint={"data": "tiny"})
    print("done", flush=True)
    CheckpointStore(result, "final").save(run.state, progress, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
