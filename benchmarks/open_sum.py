"""Benchmark of the open sum alone: droplets without periodic direction, over pairs and on a grid.

    python benchmarks/open_sum.py [--atoms 500 1000 …] [--rounds 3] [--output results.json]

Energy and forces of charges and dipoles of σ = 1.5 Å. Every measurement runs in a process of its
own; times are medians over all rounds, compilation is apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import electrostatics_case as case
import numpy as np
from models import combined
from rich.console import Console
from rich.table import Table

SUMS = ("direct", "mesh")
SIZES = (500, 1000, 2000, 4000, 7000, 10000)


def droplet(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in Å and neutral multipoles of the atoms in the middle of a box of water."""
    ((box,), multipoles) = case.structures(1, 2 * atoms + 6)
    centred = box.positions - box.positions.mean(axis=0)
    chosen = np.argsort(np.linalg.norm(centred, axis=1))[:atoms]
    kept = multipoles[chosen]
    kept[:, 0] -= kept[:, 0].mean()
    return centred[chosen], kept


def measure(atoms: int, sums: str) -> dict:
    """Time of one call, and what it gives, in this process."""
    from mace_scf_jax import runtime

    runtime.keep_freed_memory()
    import jax
    import jax.numpy as jnp
    from timing import peak_memory_mb, time_calls

    from mace_scf_jax.electrostatics import (
        ElectrostaticsSettings,
        choose_open_mesh,
        prepare,
        system_energy,
    )

    settings = ElectrostaticsSettings(
        max_l=case.MAX_L,
        smearing_width=case.SMEARING_WIDTH,
        boundary="exact",
        sums=sums,
        mesh_accuracy=case.MESH_ACCURACY,
    )
    positions, multipoles = droplet(atoms)
    open_mesh = choose_open_mesh(settings, positions)

    def energy(positions, multipoles):
        system = prepare(
            positions,
            jnp.ones(atoms, bool),
            jnp.eye(3),
            jnp.zeros(3, bool),
            jnp.zeros((0, 3), int),
            jnp.zeros(0, bool),
            jnp.asarray(jnp.inf),
            settings=settings,
            open_mesh=open_mesh,
        )
        return system_energy(system, multipoles)

    arguments = jax.device_put((positions, multipoles))
    started = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(energy)).lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    found, gradient = jax.device_get(compiled(*arguments))
    return {
        **time_calls(lambda: jax.block_until_ready(compiled(*arguments)), seconds=2.0, least=5),
        "compile_s": compile_s,
        "peak_memory_mb": peak_memory_mb(),
        "mesh": None if open_mesh is None else dataclasses.asdict(open_mesh.mesh),
        "energy": float(found),
        "forces": (-gradient).tolist(),
    }


def deviations(row: dict) -> tuple[float, float] | None:
    """Of the grid from pairs, relative: energy, largest component of a force."""
    if not all(sums in row for sums in SUMS):
        return None
    pairs, grid = (row[sums] for sums in SUMS)
    forces = np.array(pairs["forces"])
    largest = np.abs(np.array(grid["forces"]) - forces).max() / np.abs(forces).max()
    return abs(grid["energy"] / pairs["energy"] - 1.0), float(largest)


def show(rows: list[dict]) -> None:
    """Print a table of the results."""
    table = Table(title="Energy and forces of a droplet, median of the calls")
    for name in ("atoms", "pairs / ms", "grid / ms", "per N log2 N / ns", "grid", "compile / s"):
        table.add_column(name, justify="right")
    for name in ("memory / MB", "dE/E", "max dF / max F"):
        table.add_column(name, justify="right")
    for row in rows:
        atoms, grid = row["atoms"], row["mesh"]
        table.add_row(
            str(atoms),
            f"{1e3 * row['direct']['median_s']:.0f}" if "direct" in row else "",
            f"{1e3 * grid['median_s']:.1f}",
            f"{1e9 * grid['median_s'] / (atoms * math.log2(atoms)):.0f}",
            "x".join(map(str, grid["mesh"]["shape"])) + f", p = {grid['mesh']['order']}",
            f"{grid['compile_s']:.1f}",
            f"{grid['peak_memory_mb']:.0f}",
            *(f"{value:.0e}" for value in row["deviations"] or ()),
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs-limit", type=int, default=2000, help="most atoms, over pairs")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=SUMS, help="one size in this process, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.atoms[0], given.one)))
        return
    rows = []
    for atoms in given.atoms:
        row: dict = {"atoms": atoms}
        for sums in SUMS[atoms > given.pairs_limit :]:
            words = [sys.executable, __file__, "--one", sums, "--atoms", str(atoms)]
            rounds = [
                json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
                for _ in range(given.rounds)
            ]
            row[sums] = combined(rounds)
        row["deviations"] = deviations(row)
        rows.append(row)
        if given.output is not None:
            given.output.write_text(json.dumps(rows, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
