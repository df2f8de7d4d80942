"""Benchmark of the electrostatics alone: energy and features, direct and mesh, with gradients.

    python benchmarks/electrostatics.py [--torch-python PYTHON] [--output results.json]

Every measurement runs in a process of its own, those of one row one after the other, several
rounds. Times are medians over all rounds; compilation is apart. PYTHON is the interpreter of an
environment with torch and graph_longrange; without it only our side is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import electrostatics_case as case
from models import combined, measure
from rich.console import Console
from rich.table import Table

SOURCES = ("direct", "mesh", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter with torch and graph_longrange")
    parser.add_argument("--output", default="benchmark_electrostatics.json", help="JSON file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(case.TASKS), choices=case.TASKS)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(case.SIZES))
    parser.add_argument("--direct-limit", type=int, default=10000, help="most atoms, direct sum")
    parser.add_argument("--torch-limit", type=int, default=2000, help="most atoms, PyTorch")
    parser.add_argument("--no-batch", action="store_true", help="leave out the batch of small ones")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    given = parser.parse_args()

    limits = {"direct": given.direct_limit, "torch": given.torch_limit}
    systems = [] if given.no_batch else [case.BATCH]
    rows = []
    for task in given.tasks:
        for count, atoms in [*systems, *((1, size) for size in given.sizes)]:
            row = {"task": task, "systems": count, "atoms": atoms}
            rounds: dict[str, list[dict]] = {}
            for _ in range(given.rounds):
                for source in SOURCES:
                    if atoms > limits.get(source, atoms):
                        continue
                    arguments = (task, "--count", str(count), "--atoms", str(atoms))
                    if source != "torch":
                        extra = ("--method", source, "--dtype", given.dtype)
                        found = measure(
                            sys.executable, "electrostatics_jax_worker.py", *arguments, *extra
                        )
                    elif given.torch_python:
                        worker = "electrostatics_torch_worker.py"
                        found = measure(given.torch_python, worker, *arguments)
                    else:
                        continue
                    rounds.setdefault(source, []).append(found)
            row.update({source: combined(entries) for source, entries in rounds.items()})
            rows.append(row)
            print(summary(row), file=sys.stderr, flush=True)
            Path(given.output).write_text(
                json.dumps({"dtype": given.dtype, "rows": rows}, indent=1)
            )
    show(rows)


def summary(row: dict) -> str:
    """One line on one row."""
    times = [f"{s} {1e3 * row[s]['median_s']:.1f} ms" for s in SOURCES if s in row]
    return f"{row['task']}, {row['systems']} x {row['atoms']} atoms: {', '.join(times)}"


def show(rows: list[dict]) -> None:
    """Print the results as a table."""
    table = Table()
    table.add_column("task, systems x atoms")
    for heading in (
        "direct / ms",
        "mesh / ms",
        "PyTorch / ms",
        "PyTorch/direct",
        "mesh",
        "order",
        "compile, mesh / s",
        "memory, direct / MB",
        "memory, mesh / MB",
        "memory, PyTorch / MB",
    ):
        table.add_column(heading, justify="right")
    for row in rows:

        def cell(source: str, name: str, scale: float = 1.0, digits: int = 0, row=row) -> str:
            return f"{scale * row[source][name]:.{digits}f}" if source in row else ""

        ratio = ""
        if "torch" in row and "direct" in row:
            ratio = f"{row['torch']['median_s'] / row['direct']['median_s']:.1f}"
        table.add_row(
            f"{row['task']}, {row['systems']} x {row['atoms']}",
            *(cell(source, "median_s", 1e3, 1) for source in SOURCES),
            ratio,
            "x".join(map(str, row["mesh"]["mesh"])),
            str(row["mesh"]["order"]),
            cell("mesh", "compile_s", digits=1),
            *(cell(source, "peak_memory_mb") for source in SOURCES),
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
