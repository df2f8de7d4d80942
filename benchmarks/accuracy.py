"""Errors on structures not trained on, side by side with PyTorch: same data, splits and settings.

    python benchmarks/accuracy.py [--torch-python PYTHON] [--folds 4] [--output results.json]

Every fold holds out another tenth of the example data. Both sides train LocalCharges on the rest
with the settings of the PyTorch run that the data set describes, which are not quite those of the
example: no averaging, other weights in the second stage. Nothing is selected by the errors that are
reported: the last weights count. PYTHON is the interpreter of an environment with torch, mace-torch
and graph_longrange; without it only our side is trained.

Errors of single folds and seeds scatter by a third. Compare those pooled over folds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
import yaml
from models import measure
from rich.console import Console
from rich.table import Table

from mace_scf_jax import load_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "water_ions"
SPLIT_SEED, TENTHS = 20, 10
SETTINGS_OF_THE_PYTORCH_RUN = {
    "valid_file": "held_out.xyz",
    "eval_interval": 1000,  # only at the end of a stage: its last weights are kept
    "ema": False,
    "compute_avg_num_neighbors": False,
    "avg_num_neighbors": 7.5,
    "conserve_charge": "none",
}
SECOND_STAGE = {"energy_per_atom": 1000.0, "atomic_multipoles": 100.0, "dipole_per_atom": 10.0}
UNITS = {
    "energy": "energy, meV/atom",
    "forces": "forces, meV/Å",
    "multipoles": "multipoles, 10⁻³ e Å^l",
    "dipole": "dipole, 10⁻³ e Å/atom",
    "charge": "total charge, 10⁻³ e",
}

Squares = dict[str, tuple[float, int]]
"""Sum of squared deviations and their number, by quantity."""


def prepare(fold: int, folder: Path) -> None:
    """Write the two files of a split and the configuration."""
    frames = ase.io.read(EXAMPLE / "train.xyz", ":")
    held_out = np.random.default_rng(SPLIT_SEED).permutation(len(frames))[fold::TENTHS]
    rest = np.setdiff1d(np.arange(len(frames)), held_out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in (("train", rest), ("held_out", np.sort(held_out))):
        ase.io.write(folder / f"{name}.xyz", [frames[index] for index in members])
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    del config["valid_fraction"], config["ema_decay"]
    config |= SETTINGS_OF_THE_PYTORCH_RUN
    config["train_schedule"][1]["loss"] |= SECOND_STAGE
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def squares(model_file: Path, structures: Path) -> Squares:
    """Of the predictions of a model for a file."""
    total = {name: [0.0, 0] for name in UNITS}
    frames = ase.io.read(structures, ":")
    for atoms, found in zip(frames, load_model(model_file).predict(frames), strict=True):
        deviations = {
            "energy": (found["energy"] - atoms.info["REF_energy"]) / len(atoms),
            "forces": found["forces"] - atoms.arrays["REF_forces"],
            "multipoles": found["multipoles"] - atoms.arrays["REF_atomic_multipoles"],
            "dipole": (found["dipole"] - atoms.info["REF_dipole"]) / len(atoms),
            "charge": found["total_charge"] - atoms.info["total_charge"],
        }
        for name, values in deviations.items():
            total[name][0] += float(np.sum(np.square(values)))
            total[name][1] += np.size(values)
    return {name: tuple(entry) for name, entry in total.items()}


def train(folder: Path, seed: int) -> dict:
    """Train by the command line, as a user does."""
    started = time.perf_counter()
    command = [Path(sys.executable).parent / "mace-scf-jax", "train", "config.yaml"]
    subprocess.run(
        [*command, "--seed", str(seed)], cwd=folder, check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    model = folder / "water_ions_energy.model.safetensors"
    files = ("train", "held_out")
    return {
        "errors": {name: squares(model, folder / f"{name}.xyz") for name in files},
        "seconds": seconds,
    }


def root_mean_squares(results: list[dict], structures: str) -> dict[str, float]:
    """Pooled over results."""
    pooled = {}
    for name in UNITS:
        sums, counts = zip(*(result["errors"][structures][name] for result in results), strict=True)
        pooled[name] = 1e3 * (sum(sums) / sum(counts)) ** 0.5
    return pooled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter with mace-torch and graph_longrange")
    parser.add_argument("--folds", type=int, default=4, choices=range(1, TENTHS + 1))
    parser.add_argument("--output", default="benchmark_accuracy.json", help="JSON file of results")
    given = parser.parse_args()

    results: dict[str, list[dict]] = {"JAX": []}
    if given.torch_python:
        results["PyTorch"] = []
    with tempfile.TemporaryDirectory() as work:
        for fold in range(given.folds):
            folder, seed = Path(work) / str(fold), 100 + fold
            prepare(fold, folder)
            results["JAX"].append(train(folder, seed))
            if given.torch_python:
                arguments = (str(folder), "--seed", str(seed))
                found = measure(given.torch_python, "accuracy_torch_worker.py", *arguments)
                results["PyTorch"].append(found)
            Path(given.output).write_text(json.dumps(results, indent=1))
            print(f"fold {fold} done", flush=True)

    table = Table("", *UNITS.values(), "seconds")
    for side, runs in results.items():
        for number, run in enumerate(runs):
            errors = root_mean_squares([run], "held_out")
            numbers = [f"{value:.1f}" for value in errors.values()]
            table.add_row(f"{side}, held out, fold {number}", *numbers, f"{run['seconds']:.0f}")
        for structures in ("held_out", "train"):
            errors = root_mean_squares(runs, structures)
            name = f"{side}, {structures.replace('_', ' ')}, all folds"
            table.add_row(name, *(f"{value:.1f}" for value in errors.values()), "")
    Console().print(table)


if __name__ == "__main__":
    main()
