"""Errors by the number of structures: ``python learning_curves.py FOLDER``.

LocalCharges, from the start model and from random weights, on 10 to 360 clusters of ../water_ions,
with the options of config.yaml. Three seeds each, of initial weights and of the order of batches.
Every run makes as many steps. The 80 clusters of test.xyz judge. FOLDER keeps the runs; what is
finished is not repeated. Writes learning_curves.json, and docs/figures/fine_tuning.png.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ase
import ase.io
import jax
import numpy as np
import yaml

import mace_scf_jax
from mace_scf_jax.predict import evaluate_file
from mace_scf_jax.reports import style
from mace_scf_jax.training.loop import Programs

HERE = Path(__file__).parent
ALL = HERE.parent / "water_ions/train.xyz"
SIZES = (10, 30, 100, 360)
SEEDS = (1, 2, 3)
VALID = 20
STEPS = 2000
BATCH = 10
EVALUATIONS = 40
"""Of the validation set, in a run."""
STARTS = {"from random weights": 0.01, "from the start model": 0.002}
"""Learning rate of the first stage; that of the second is a tenth."""
ERRORS = {"rmse_e_per_atom": "energy, meV/atom", "rmse_f": "forces, meV/Å"}


def subset(size: int) -> tuple[list[ase.Atoms], list[ase.Atoms]]:
    """Structures to train with, of all elements, and to validate with; none of those that judge."""
    judging = {atoms.positions.tobytes() for atoms in ase.io.read(HERE / "test.xyz", ":")}
    others = [atoms for atoms in ase.io.read(ALL, ":") if atoms.positions.tobytes() not in judging]
    rng = np.random.default_rng(0)
    elements = {number for atoms in others for number in atoms.numbers.tolist()}
    while True:
        order = rng.permutation(len(others))
        chosen = [others[i] for i in order[:size]]
        if {number for atoms in chosen for number in atoms.numbers.tolist()} == elements:
            return chosen, [others[i] for i in order[-VALID:]]


def options_of(start: str, size: int, seed: int, folder: Path) -> dict[str, Any]:
    """The configuration of the example, with its steps shared among so many structures."""
    options = yaml.safe_load((HERE / "config.yaml").read_text())
    epochs = STEPS * BATCH // size
    second = epochs * 3 // 5
    if start == "from random weights":
        network = yaml.safe_load((HERE / "start.yaml").read_text())
        names = ("r_max", "hidden_irreps", "num_interactions", "max_ell", "correlation")
        names += ("radial_MLP", "MLP_irreps")
        options |= {name: network[name] for name in names} | {"E0s": "average"}
        del options["start_from"]
    else:
        options["start_from"] = str(HERE / "start.model.safetensors")
    stages = options["train_schedule"]
    stages[0] |= {"start": 0, "end": second - 1, "lr": STARTS[start]}
    stages[1] |= {"start": second, "end": epochs - 1, "lr": STARTS[start] / 10}
    return options | {
        "name": "_".join(start.split()[1:]) + f"_{size}",
        "seed": seed,
        "work_dir": str(folder),
        "batch_size": BATCH,
        "eval_interval": max(1, epochs // EVALUATIONS),
    }


def errors_of(
    start: str, size: int, seed: int, folder: Path, programs: Programs
) -> dict[str, float]:
    """Train, and return the errors of the clusters that judge, in eV and Å."""
    place = folder / str(size)
    place.mkdir(parents=True, exist_ok=True)
    files = {"train_file": place / "train.xyz", "valid_file": place / "valid.xyz"}
    for file, structures in zip(files.values(), subset(size), strict=True):
        ase.io.write(file, structures)
    options = options_of(start, size, seed, folder)
    options |= {name: str(file) for name, file in files.items()}
    options.pop("valid_fraction", None)
    del options["test_file"]
    result = mace_scf_jax.train(options, programs=programs)
    model = mace_scf_jax.load_model(list(result.models.values())[-1])
    metrics = evaluate_file(model, HERE / "test.xyz").metrics["all"]
    return {name: metrics[name] for name in (*ERRORS, "rmse_mu_per_atom")}


def draw(errors: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Mean of the seeds and every seed, by the number of structures."""
    with style.drawing():
        figure, panels = style.panels(len(ERRORS), width=3.4, height=2.9)
        for axes, (name, title) in zip(panels, ERRORS.items(), strict=True):
            for colour, (start, by_size) in zip(style.COLOURS, errors.items(), strict=False):
                sizes = [int(size) for size in by_size]
                values = np.array([[1e3 * run[name] for run in by_size[str(n)]] for n in sizes])
                axes.plot(sizes, values.mean(axis=1), color=colour, label=start)
                axes.plot(sizes, values, ".", color=colour, markersize=4)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(SIZES, [str(size) for size in SIZES])
            axes.minorticks_off()
            style.logarithmic(axes)
            axes.set_title(title)
            axes.set_xlabel("structures")
        panels[0].legend()
    style.save(figure, HERE.parents[1] / "docs/figures/fine_tuning.png")


def main(folder: str) -> None:
    """Run what is missing, and draw."""
    file = HERE / "learning_curves.json"
    errors: dict[str, dict[str, list[dict[str, float]]]] = {}
    for size in SIZES:
        for start in STARTS:
            programs = Programs()
            runs = [errors_of(start, size, seed, Path(folder), programs) for seed in SEEDS]
            errors.setdefault(start, {})[str(size)] = runs
            jax.clear_caches()  # a process can hold so many compiled functions only
            print(
                start,
                size,
                [{k: round(1e3 * v, 1) for k, v in run.items()} for run in runs],
                flush=True,
            )
            file.write_text(json.dumps(errors, indent=1) + "\n")
    draw(errors)


if __name__ == "__main__":
    main(*sys.argv[1:])
