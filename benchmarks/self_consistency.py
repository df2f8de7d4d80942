"""Benchmark of self-consistency: what solving costs, and what its derivatives cost.

    python benchmarks/self_consistency.py [--output results.json]
    python benchmarks/self_consistency.py --sizes 2000 --training  # energies and forces alone
    python benchmarks/self_consistency.py --sizes --training 1x192 --steps 5 40  # memory of steps

Energy and forces of a fixed-point model against a LocalCharges model with the same backbone, and
the gradient of a force loss with implicit derivatives against a loop of linear mixing that is
differentiated. What is compared runs in one process, in turns; several rounds; times are medians,
compilation is apart. Temporary memory is what the compiled function allocates besides its
arguments and results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from models import measure
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
        (f"E + F, {atoms} atoms", ("evaluation", *size(1, atoms)), ["LocalCharges", "implicit"])
        for atoms in given.sizes
    ]
    tasks += [
        (
            f"gradient of a force loss, {count} x {atoms} atoms",
            ("training", *size(count, atoms)),
            ["implicit", *map(str, given.steps)],
        )
        for count, atoms in given.training
    ]
    if not tasks:
        parser.error("nothing to measure: no --sizes and no --training")
    rounds: dict[tuple[str, str], list[dict]] = {}
    rows = []
    for number in range(given.rounds):
        for label, arguments, variants in tasks:
            found = measure(
                sys.executable, "self_consistency_worker.py", *arguments, "--variants", *variants
            )
            for variant, result in found["variants"].items():
                rounds.setdefault((label, variant), []).append(result)
                took = f"{1e3 * result['median_s']:.1f} ms"
                print(f"{number + 1}: {label}, {variant}: {took}", file=sys.stderr)
        first_of = {label: variants[0] for label, _, variants in tasks}
        rows = [
            {
                "task": label,
                "variant": variant,
                **entries[-1],
                "median_s": statistics.median(entry["median_s"] for entry in entries),
                "over_first": statistics.median(
                    entry["median_s"] / first["median_s"]
                    for entry, first in zip(entries, rounds[label, first_of[label]], strict=True)
                ),
            }
            for (label, variant), entries in rounds.items()
        ]
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
    table = Table("task", "variant (number: unrolled steps)")
    for heading in ("time / ms", "over first", "compile / s", "temporary / MB", "evaluations of F"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["task"],
            row["variant"],
            f"{1e3 * row['median_s']:.1f}",
            f"{row['over_first']:.2f}",
            f"{row['compile_s']:.1f}",
            f"{row['temporary_memory_mb']:.0f}",
            str(row.get("scf_evaluations", "")),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
