"""The folder of a training run that never took place: results and log as a run writes them."""

import json
from pathlib import Path

import numpy as np

TAG = "water_run-7"
STAGES = (("coarse", 0, 3, 0.01), ("fine", 4, 7, 0.001))
STEPS_PER_EPOCH = 5
LOG = """\
2026-01-02 03:04:05.678 INFO: mace-scf-jax version: 0.1.0
2026-01-02 03:04:05.679 INFO: JAX version: 0.10.1, Python version: 3.11.7
2026-01-02 03:04:05.680 INFO: Device: cpu (cpu)
2026-01-02 03:04:05.681 INFO: Configuration: {options}
2026-01-02 03:04:05.682 WARNING: Option 'swa' has no effect
2026-01-02 03:04:05.683 INFO: Training set 1/1 [energy: 9, forces: 9]
2026-01-02 03:04:05.684 INFO: Total Training set [energy: 9, forces: 9]
2026-01-02 03:04:05.685 INFO: Random Split Training set [energy: 8, forces: 8]
2026-01-02 03:04:05.686 INFO: Random Split Validation set [energy: 1, forces: 1]
2026-01-02 03:04:05.687 INFO: Total number of configurations: train=8, valid=1, tests=[]
2026-01-02 03:04:05.688 INFO: AtomicNumberTable: (1, 8)
2026-01-02 03:04:05.689 INFO: Number of parameters: 1234
2026-01-02 03:04:06.000 INFO: Compiled training step for bucket 1 (9 graphs, 68 atoms, 612 edges, \
2816 k) in 8.9 s
2026-01-02 03:04:07.000 INFO: Compiled loss for bucket 1 (9 graphs, 76 atoms) in 0.2 s
2026-01-02 03:04:08.000 WARNING: Option 'swa' has no effect
2026-01-02 03:04:09.000 INFO: Done
"""


def options(work_dir: Path) -> dict:
    loss = {"forces": 10.0, "energy_per_atom": {"weight": 1.0, "delta": 0.1}}
    return {
        "name": "water",
        "seed": 7,
        "work_dir": str(work_dir),
        "model": "LocalCharges",
        "batch_size": 2,
        "error_table": "PerAtomRMSE",
        "train_file": "<train>.xyz",
        "train_schedule": {
            str(index): {"name": name, "start": start, "end": end, "lr": rate, "loss": loss}
            for index, (name, start, end, rate) in enumerate(STAGES)
        },
    }


def records(*, scf: bool = False, final: bool = True) -> list[dict]:
    """All lines of the results."""
    random = np.random.default_rng(0)
    written = []
    for name, start, end, rate in STAGES:
        number = 0
        for epoch in range(start, end + 1):
            identity = {"stage": name, "epoch": epoch}
            solved = {"structures": 10, "max_steps": 1, "diverged": 0, "singular": 0}
            counts = {"scf": solved | {"fallback": 0, "evaluations": 120}} if scf else {}
            for _ in range(STEPS_PER_EPOCH):
                terms = {"forces": 2.0 / (epoch + 1), "energy_per_atom": float(random.random())}
                step = {"opt_step": number, "loss": sum(terms.values()), "loss_terms": terms}
                written.append({"mode": "opt", **identity, **step, **counts, "time": 0.1})
                number += 1
            errors = {"rmse_e_per_atom": 0.1 / (epoch + 1), "rmse_f": 0.5 / (epoch + 1)}
            more = {"learning_rates": {"lr": rate, "embedding_lr": rate / 2}, "time": 0.2}
            validated = {**identity, "loss": 3.0 / (epoch + 1), **errors, **counts, **more}
            written.append({"mode": "eval", **validated})
            written.append({"mode": "eval_test", "test_name": "ice_Default", **validated})
    if final:
        written += [
            {"mode": "final", "stage": name, "epoch": end, "set": part, "rmse_f": 0.0421}
            for name, _, end, _ in STAGES
            for part in ("train", "valid", "ice_Default")
        ]
    return written


def make_run(folder: Path, change=lambda record: record, **what: bool) -> Path:
    """Write the files of a run, with its records changed by a function."""
    for name in ("results", "logs"):
        (folder / name).mkdir(parents=True)
    lines = [json.dumps(change(record)) + "\n" for record in records(**what)]
    (folder / f"results/{TAG}_train.txt").write_text("".join(lines))
    log = LOG.replace("{options}", json.dumps(options(folder)))
    (folder / f"logs/{TAG}.log").write_text(log)
    return folder
