"""Benchmark of whole models: energy + forces and a training step, side by side with PyTorch.

    python benchmarks/models.py [--torch-python PYTHON] [--output results.json]

Every measurement runs in a process of its own, those of one row one after the other, several
rounds, so that noise hits both sides alike. Times are medians over all rounds; compilation is
apart. PYTHON is the interpreter of an environment with torch, mace-torch and graph_longrange;
without it only our side is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import settings as sizes
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


def measure(python: str, worker: str, *arguments: str, environment: dict | None = None) -> dict:
    """Run one worker process and read the JSON object on its last line."""
    finished = subprocess.run(
        [python, str(HERE / worker), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{worker} {' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.strip().splitlines()[-1])


def combined(rounds: list[dict]) -> dict:
    """One result from several rounds: medians of times, largest memory."""
    result = dict(rounds[-1])
    for name in ("median_s", "compile_s"):
        if name in result:
            result[name] = statistics.median(entry[name] for entry in rounds)
    result["min_s"] = min(entry["min_s"] for entry in rounds)
    result["peak_memory_mb"] = max(entry["peak_memory_mb"] for entry in rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter with mace-torch and graph_longrange")
    parser.add_argument("--output", default="benchmark_models.json", help="JSON file of results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=["LocalCharges", "ScaleShiftMACE"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(sizes.EVALUATION_SIZES))
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    given = parser.parse_args()

    count, atoms = sizes.TRAINING_BATCH
    tasks = [("evaluation", size, f"E + F, {size} atoms") for size in given.sizes]
    tasks.append(("training", atoms, f"training step, {count} x {atoms} atoms"))
    rows = []
    for family in given.families:
        for task, size, label in tasks:
            arguments = (task, "--family", family, "--atoms", str(size))
            ours, theirs = [], []
            for _ in range(given.rounds):
                ours.append(
                    measure(sys.executable, "jax_worker.py", *arguments, "--dtype", given.dtype)
                )
                if given.torch_python:
                    theirs.append(measure(given.torch_python, "torch_worker.py", *arguments))
            row = {"family": family, "task": label, "jax": combined(ours)}
            if theirs:
                row["torch"] = combined(theirs)
            rows.append(row)
            Path(given.output).write_text(
                json.dumps({"dtype": given.dtype, "rows": rows}, indent=1)
            )
            print(f"{family}, {label}: {1e3 * row['jax']['median_s']:.1f} ms", file=sys.stderr)
    show(rows)


def show(rows: list[dict]) -> None:
    """Print the results as a table."""
    table = Table()
    table.add_column("model, task")
    for heading in (
        "JAX / ms",
        "PyTorch / ms",
        "ratio",
        "compile / s",
        "JAX memory / MB",
        "PyTorch memory / MB",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        ours, theirs = row["jax"], row.get("torch")
        table.add_row(
            f"{row['family']}, {row['task']}",
            f"{1e3 * ours['median_s']:.1f}",
            f"{1e3 * theirs['median_s']:.1f}" if theirs else "",
            f"{theirs['median_s'] / ours['median_s']:.1f}" if theirs else "",
            f"{ours['compile_s']:.1f}",
            f"{ours['peak_memory_mb']:.0f}",
            f"{theirs['peak_memory_mb']:.0f}" if theirs else "",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
