"""Memory and speed of training data read from preprocessed files.

    python benchmarks/data_pipeline.py [--structures 100000] [--steps 200] [--workers 4]
    python benchmarks/data_pipeline.py --config examples/water_ions/config.yaml --steps 54

Preprocesses the data of a configuration, or small random structures (1 to 3 water-like molecules
with labels) that it writes to an extended XYZ file, and measures

* the memory of the process after each epoch of reading all batches, in shuffled order;
* the time of a training step fed by the pipeline (files, collation in the background), and of the
  same steps on the same batches held in memory.

The first should not grow, the second should not be longer by more than 5 %. Nothing else should be
running, and the model should be as large as those that one means to train (``--channels``).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import yaml

from mace_scf_jax.data.batching import prefetched
from mace_scf_jax.data.preprocessing import preprocess
from mace_scf_jax.graph import Graph
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.state import initial_state
from mace_scf_jax.training.loop.steps import Steps, scalars
from mace_scf_jax.training.optimise.learning_rates import start_of_stage
from mace_scf_jax.training.preparation import Preparation, prepare_run
from mace_scf_jax.training.settings import (
    PreprocessOptions,
    optimiser_settings,
    preprocess_settings,
)

LOSS = {"energy_per_atom": 1.0, "forces": 10.0, "atomic_multipoles": 10.0}
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
COMMENT = (
    "Properties=species:S:1:pos:R:3:REF_forces:R:3:REF_multipoles:R:4 "
    'REF_energy={energy:.8f} total_charge=0.0 Lattice="30 0 0 0 30 0 0 0 30" pbc="F F F"'
)
HEADS = {
    "DFT": {
        "info_keys": {"energy": "REF_energy", "total_charge": "total_charge"},
        "arrays_keys": {"forces": "REF_forces", "atomic_multipoles": "REF_multipoles"},
    }
}


def write_structures(path: Path, count: int) -> None:
    """Random structures, written one by one."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(count):
            molecules = int(rng.integers(1, 4))
            positions = np.concatenate([WATER + 2.9 * i for i in range(molecules)])
            positions += rng.normal(scale=0.05, size=positions.shape)
            labels = rng.normal(scale=0.1, size=(len(positions), 7))
            energy = -2065.0 * molecules + rng.normal()
            file.write(f"{len(positions)}\n{COMMENT.format(energy=energy)}\n")
            for element, position, values in zip("OHH" * molecules, positions, labels, strict=True):
                numbers = " ".join(f"{number:.8f}" for number in (*position, *values))
                file.write(f"{element} {numbers}\n")


def options_of_run(train_file: Path, arguments: argparse.Namespace) -> dict:
    """Options of a small charged model."""
    return {
        "train_file": str(train_file),
        "heads": HEADS,
        "E0s": {"H": -13.6, "O": -2037.8},
        "model": "LocalCharges",
        "electrostatic_pbc_method": "realspace",
        "r_max": 5.0,
        "hidden_irreps": f"{arguments.channels}x0e + {arguments.channels}x1o",
        "max_ell": 2,
        "correlation": 2,
        "MLP_irreps": "16x0e",
        "batch_size": arguments.batch_size,
        "valid_batch_size": arguments.batch_size,
        "valid_fraction": 0.01,
        "default_dtype": arguments.dtype,
        "train_schedule": {0: {"name": "only", "start": 0, "end": 0, "lr": 0.001, "loss": LOSS}},
    }


def options_of_config(path: Path) -> dict:
    """Options of a configuration file, with the path of its data as seen from here."""
    options = yaml.safe_load(path.read_text())
    return {**options, "train_file": str(path.parent / options["train_file"])}


def resident_megabytes() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class TrainingSteps:
    """The compiled steps of the first stage of a run, one after the other.

    Args:
        options: of the run.
        prepared: for the run.
    """

    def __init__(self, options: TrainOptions, prepared: Preparation) -> None:
        settings, stage = optimiser_settings(options), options.train_schedule[0]
        self._steps = Steps(settings, compute_stress=False, on_compilation=lambda _: None)
        self._state = initial_state(prepared.parameters, settings)
        self._mode, self._options = prepared.modes(stage), stage.loss_options
        dtype = jax.tree.leaves(prepared.parameters)[0].dtype
        self._rates = scalars(start_of_stage(stage).rates, dtype)
        self._weights = scalars(stage.loss, dtype)

    def seconds_per_step(self, batches: Iterable[Graph]) -> float:
        """Mean time of a step; records are read one step late, as in training."""
        started, count, unread = time.perf_counter(), 0, None
        for graph in batches:
            self._state, record = self._steps.train(
                self._mode, self._state, (graph,), self._rates, self._weights, self._options
            )
            if unread is not None:
                jax.device_get(unread)
            unread, count = record, count + 1
        jax.device_get(unread)
        return (time.perf_counter() - started) / count


def first(batches: Iterable[Graph], count: int) -> Iterable[Graph]:
    """The first batches."""
    for _, graph in zip(range(count), batches, strict=False):
        yield graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="of a training run; random data without")
    parser.add_argument("--structures", type=int, default=100_000, help="random ones")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of reading")
    parser.add_argument("--steps", type=int, default=200, help="training steps of each round")
    parser.add_argument("--rounds", type=int, default=5, help="of either kind, in turns")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="JSON file of results")
    arguments = parser.parse_args()
    results: dict[str, object] = {"device": str(jax.devices()[0].device_kind)}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.config is None:
            write_structures(folder / "train.xyz", arguments.structures)
            options = options_of_run(folder / "train.xyz", arguments)
        else:
            options = options_of_config(arguments.config)
        options = PreprocessOptions(**options)
        started = time.perf_counter()
        settings = preprocess_settings(options, workers=arguments.workers, shard_megabytes=32.0)
        preprocess(settings, folder / "data")
        results["preprocessing_s"] = time.perf_counter() - started
        results["xyz_mb"] = Path(options.train_file).stat().st_size / 1e6
        results["data_mb"] = sum(p.stat().st_size for p in folder.glob("data/*/*")) / 1e6
        print(results)

        prepared = prepare_run(options.model_copy(update={"train_file": str(folder / "data")}))
        results["opened_mb"] = resident_megabytes()
        results["epochs"] = []
        for epoch in range(arguments.epochs):
            started = time.perf_counter()
            batches = sum(1 for _ in prefetched(prepared.training.epoch(epoch)))
            seconds = time.perf_counter() - started
            results["epochs"].append(
                {"seconds": seconds, "batches": batches, "memory_mb": resident_megabytes()}
            )
            print(f"epoch {epoch}: {results['epochs'][-1]}")

        steps = TrainingSteps(options, prepared)
        in_memory = list(first(prepared.training.epoch(0), arguments.steps))
        steps.seconds_per_step(in_memory)  # compiles each bucket
        times: dict[str, list[float]] = {"memory": [], "pipeline": []}
        for _ in range(arguments.rounds):
            times["memory"].append(steps.seconds_per_step(in_memory))
            pipeline = prefetched(first(prepared.training.epoch(0), arguments.steps))
            times["pipeline"].append(steps.seconds_per_step(pipeline))
        for kind, values in times.items():
            results[f"step_from_{kind}_ms"] = 1e3 * float(np.median(values))
        ratios = np.divide(times["pipeline"], times["memory"])
        results["pipeline_over_memory"] = float(np.median(ratios))
        results["quartiles"] = np.quantile(ratios, [0.25, 0.75]).tolist()
    print(json.dumps(results, indent=2))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
