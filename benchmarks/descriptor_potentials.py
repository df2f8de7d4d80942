"""Benchmark of descriptor potentials on one thread: training, prediction, molecular dynamics.

    python benchmarks/descriptor_potentials.py train.xyz [--dtype float32] [--output results.json]

The first 96 structures of 22 to 24 atoms of the file (titanium oxides, energies and forces as
``REF_energy`` and ``REF_forces``); descriptors of orders 10 (6 Å) and 3 (3.5 Å), networks
30-10-10-1. Training counts everything that an epoch does but saving its state; prediction counts
neighbours too. Rates are medians over rounds, compilation is apart. Dynamics is of 5,184 atoms of
rutile: a descriptor potential of orders 20 (6.5 Å) and 6 (5 Å), networks 56-5-5-1, and a MACE model
of the sizes of the example water_ions, both with random weights.

Run it under ``taskset -c 0``: that leaves one processor to all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

from mace_scf_jax import runtime

runtime.keep_freed_memory()

import ase
import ase.io
import jax
import numpy as np
from ase.md.velocitydistribution import thermalize_momenta
from ase.spacegroup import crystal
from rich.console import Console
from rich.table import Table

from mace_scf_jax import energy_function
from mace_scf_jax.backbones import ChebyshevSettings, MACESettings
from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.models import ModelSettings, build
from mace_scf_jax.predict.model import Model
from mace_scf_jax.simulate.settings import SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation
from mace_scf_jax.training.config.options import train_options
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.loop import Trainer
from mace_scf_jax.training.loop.observer import Observer
from mace_scf_jax.training.loop.options import ValidationOptions
from mace_scf_jax.training.preparation import prepare_run
from mace_scf_jax.training.settings import optimiser_settings

STRUCTURES, ATOMS = 96, range(22, 25)
ATOMIC_ENERGIES = {"Ti": -1604.604515075, "O": -432.503149303}
ELEMENTS = (8, 22)
DESCRIPTOR = {"rad_order": 10, "rad_cutoff": 6.0, "ang_order": 3, "ang_cutoff": 3.5}
ARCHITECTURE = [[10, "tanh"], [10, "tanh"]]
PUBLISHED = Descriptor((22, 8), 20, 6.5, 6, 5.0)
CELLS_OF_RUTILE = (12, 12, 6)
ENERGIES = {"energy_per_atom": 0.9}
FORCES = {"energy_per_atom": 0.9, "forces": 0.1}
TRAININGS = {
    "energies, features computed before, batch 32": ("true", 32, ENERGIES),
    "energies, features computed before, batch 8": ("true", 8, ENERGIES),
    "energies, nothing before, batch 32": ("false", 32, ENERGIES),
    "energies + forces, derivatives computed before, batch 8": ("true", 8, FORCES),
    "energies + forces, derivatives computed before, batch 32": ("true", 32, FORCES),
    "energies + forces, nothing before, batch 8": ("false", 8, FORCES),
    "energies + forces, nothing before, batch 32": ("false", 32, FORCES),
}
"""Feature caches, structures in a batch, loss."""


class EpochClock(Observer):
    """Seconds of each epoch, and of compilation."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.compilation = 0.0

    def epoch_started(self, stage, progress) -> None:
        self._started = time.perf_counter()

    def epoch_done(self, stage, progress) -> None:
        self.epochs.append(time.perf_counter() - self._started)

    def compiled(self, compilation) -> None:
        self.compilation += compilation.seconds


def train(file: Path, caches: str, batch_size: int, loss: dict, given: argparse.Namespace) -> dict:
    """Epochs of training for some seconds."""
    is_short = loss is ENERGIES and caches == "true"
    epochs = 150 if is_short else 40
    stage = {"name": "only", "start": 0, "end": epochs - 1, "lr": 0.001}
    stage["loss"] = {name: {"weight": weight, "form": "rmse"} for name, weight in loss.items()}
    options = train_options()(
        name="benchmark",
        train_file=str(file),
        valid_file=str(file.with_name("valid.xyz")),
        E0s=ATOMIC_ENERGIES,
        energy_key="REF_energy",
        forces_key="REF_forces",
        model="ChebyshevANN",
        descriptor=DESCRIPTOR | {"species": ["Ti", "O"]},
        arch=ARCHITECTURE,
        cache_features=caches,
        batch_size=batch_size,
        valid_batch_size=8,
        optimizer="adam",
        default_dtype=given.dtype,
        eval_interval=1000,
        train_schedule={0: stage},
    )
    prepared, clock = prepare_run(options), EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            prepared.modes,
            prepared.parameters,
            prepared.training_data(with_tests=False),
            optimiser=optimiser_settings(options),
            scheduler=None,
            validation=ValidationOptions.of(options),
            store=CheckpointStore(folder, "benchmark"),
            observers=[clock],
        )
        trainer.run(options.train_schedule, fingerprint={}, resume=False)
    return {
        "structures_per_s": STRUCTURES / statistics.median(clock.epochs[3:]),
        "compile_s": clock.compilation,
    }


def random_model(settings: ModelSettings, atoms: ase.Atoms, dtype: str) -> Model:
    """A model with random weights."""
    unprepared = Model(settings, {"weights": np.zeros(1, dtype)})
    (batch,) = unprepared.batches(unprepared.prepare_atoms([atoms]))
    parameters = jax.jit(build(settings).init)(jax.random.key(0), batch.graph)["params"]
    return Model(settings, jax.tree.map(lambda leaf: leaf.astype(dtype), parameters))


def descriptor_potential(descriptor: Descriptor, nodes: int, atoms, dtype: str) -> Model:
    layers = ((nodes, "tanh"), (nodes, "tanh"))
    backbone = ChebyshevSettings(ELEMENTS, descriptor, (layers, layers))
    energies = tuple(ATOMIC_ENERGIES[symbol] for symbol in ("O", "Ti"))
    settings = ModelSettings(family="ChebyshevANN", backbone=backbone, atomic_energies=energies)
    return random_model(settings, atoms, dtype)


def mace_potential(atoms: ase.Atoms, dtype: str) -> Model:
    """MACE of the sizes of the example water_ions."""
    backbone = MACESettings(
        elements=ELEMENTS,
        hidden_irreps="16x0e + 16x1o",
        r_max=5.0,
        max_ell=2,
        correlation=2,
        num_interactions=2,
        radial_MLP=(32, 32),
        avg_num_neighbors=50.0,
        scalar_last_layer=True,
    )
    settings = ModelSettings("ScaleShiftMACE", backbone=backbone, atomic_energies=(0.0, 0.0))
    return random_model(settings, atoms, dtype)


def predict(frames: list[ase.Atoms], *, forces: bool, given: argparse.Namespace) -> dict:
    """Prediction from atoms, neighbours included."""
    model = descriptor_potential(Descriptor((22, 8), 10, 6.0, 3, 3.5), 10, frames[0], given.dtype)
    seconds = []
    for _ in range(given.rounds + 1):
        started = time.perf_counter()
        model.predict(frames, forces=forces)
        seconds.append(time.perf_counter() - started)
    usual = statistics.median(seconds[1:])
    return {"structures_per_s": len(frames) / usual, "compile_s": seconds[0] - usual}


def rutile() -> ase.Atoms:
    """Rutile with atoms displaced at random, at 300 K."""
    cell = crystal(
        ["Ti", "O"],
        basis=[(0, 0, 0), (0.3053, 0.3053, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    )
    atoms = cell.repeat(CELLS_OF_RUTILE)
    atoms.rattle(0.03, seed=0)
    return atoms


def dynamics(model: Model, atoms: ase.Atoms, steps: int) -> dict:
    """Steps of molecular dynamics by the engine of ``mace-scf-jax md``."""
    settings = SimulationSettings("nve", timestep=0.5)
    atoms = atoms.copy()
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    simulation = Simulation(*energy_function(model), atoms, settings)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        simulation.advance(steps)
        jax.block_until_ready(simulation.state)
        seconds.append(time.perf_counter() - started)
    usual = statistics.median(seconds[1:])
    return {"steps_per_s": steps / usual, "atoms": len(atoms), "compile_s": seconds[0] - usual}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", help="extended XYZ file")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["train", "predict", "md"])
    parser.add_argument("--output", default="benchmark_descriptor_potentials.json")
    given = parser.parse_args()

    frames = [atoms for atoms in ase.io.read(given.structures, ":") if len(atoms) in ATOMS]
    frames, others = frames[:STRUCTURES], frames[STRUCTURES : STRUCTURES + 8]
    results: dict[str, dict] = {}
    if "train" in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "train.xyz"
            ase.io.write(file, frames)
            ase.io.write(file.with_name("valid.xyz"), others)
            for name, how in TRAININGS.items():
                rounds = [train(file, *how, given) for _ in range(given.rounds)]
                results[f"training: {name}"] = median_of(rounds)
                report(results)
    if "predict" in given.parts:
        for forces in (False, True):
            name = "prediction: energies" + (" + forces" if forces else "")
            results[name] = predict(frames, forces=forces, given=given)
            report(results)
    if "md" in given.parts:
        atoms = rutile()
        one = atoms[:6]
        models = {
            "descriptors": (descriptor_potential(PUBLISHED, 5, one, given.dtype), 20),
            "MACE": (mace_potential(one, given.dtype), 3),
        }
        for name, (model, steps) in models.items():
            results[f"dynamics: {name}"] = dynamics(model, atoms, steps)
            report(results)
    Path(given.output).write_text(json.dumps({"dtype": given.dtype, "rows": results}, indent=1))
    show(results)


def median_of(rounds: list[dict]) -> dict:
    """Medians of the rates; compilation of the first round, which later ones may find done."""
    rates = [entry["structures_per_s"] for entry in rounds]
    return {"structures_per_s": statistics.median(rates), "compile_s": rounds[0]["compile_s"]}


def report(results: dict[str, dict]) -> None:
    name, result = list(results.items())[-1]
    print(name, result, flush=True)


def show(results: dict[str, dict]) -> None:
    """Print the results as a table."""
    table = Table("task", "structures or steps / s", "compile, s")
    for name, result in results.items():
        rate = result.get("structures_per_s", result.get("steps_per_s"))
        table.add_row(name, f"{rate:.4g}", f"{result['compile_s']:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
