"""Benchmark of self-consistency: what solving costs, and what its derivatives cost.

    python benchmarks/self_consistency.py [--output results.json]
    python benchmarks/self_consistency.py --sizes 2000 --training  # energies and forces alone
    python benchmarks/self_consistency.py --sizes --training 1x192 --steps 5 40  # memory of steps

Energy and forces of a fixed-point model against a LocalCharges model with the same backbone, and
the gradient of a force loss with implicit derivatives against a loop of linear mixing that is
differentiated. Every measurement runs in a process of its own, several rounds; times are medians,
compilation is apart. Temporary memory is what the compiled function allocates besides its
arguments and results.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from models import combined, measure
from rich.console import Console
from rich.table import Table

SIZES = (24, 81, 192, 648, 2000)
TRAINING = ("4x24", "1x192")
"""Structures in a batch x atoms in a structure."""
UNROLLED_STEPS = (5, 10, 20, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="benchmark_self_consistency.json", help="JSON file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="atoms; none: skip")
    parser.add_argument(
        "--training", type=batch_size, nargs="*", default=[batch_size(text) for text in TRAINING],
        metavar="COUNTxATOMS", help="batches of force losses; none: skip",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, nargs="*", default=UNROLLED_STEPS, help="that are unrolled; none: skip"
    )
    given = parser.parse_args()

    tasks = [
        (f"E + F, {family}, {atoms} atoms", ("evaluation", "--family", family, *size(1, atoms)))
        for atoms in given.sizes
        for family in ("LocalCharges", "FixedPoint")
    ]
    for count, atoms in given.training:
        where = f"gradient of a force loss, {count} x {atoms} atoms"
        tasks.append((f"{where}, implicit", ("training", *size(count, atoms))))
        tasks += [
            (
                f"{where}, {steps} steps unrolled",
                ("training", "--mode", "unroll", "--steps", str(steps), *size(count, atoms)),
            )
            for steps in given.steps
        ]
    if not tasks:
        parser.error("nothing to measure: no --sizes and no --training")
    rounds: dict[str, list[dict]] = {}
    rows = []
    for number in range(given.rounds):
        for label, arguments in tasks:
            found = measure(sys.executable, "self_consistency_worker.py", *arguments)
            rounds.setdefault(label, []).append(found)
            print(f"{number + 1}: {label}: {1e3 * found['median_s']:.1f} ms", file=sys.stderr)
        rows = [{"task": label, **combined(entries)} for label, entries in rounds.items()]
        Path(given.output).write_text(json.dumps({"rows": rows}, indent=1))
    show(rows)


def batch_size(text: str) -> tuple[int, int]:
    """Structures and atoms of "4x24"."""
    count, atoms = text.split("x")
    return int(count), int(atoms)


def size(count: int, atoms: int) -> tuple[str, ...]:
    return "--count", str(count), "--atoms", str(atoms)


def show(rows: list[dict]) -> None:
    """Print the results as a table."""
    table = Table()
    table.add_column("task")
    for heading in ("time / ms", "compile / s", "temporary / MB", "peak / MB", "evaluations of F"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["task"],
            f"{1e3 * row['median_s']:.1f}",
            f"{row['compile_s']:.1f}",
            f"{row['temporary_memory_mb']:.0f}",
            f"{row['peak_memory_mb']:.0f}",
            str(row.get("scf_evaluations", "")),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
