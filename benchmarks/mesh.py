"""Benchmark of electrostatic sums: over wavevectors and on a mesh, by the path of the commands.

    python benchmarks/mesh.py [--atoms 192 384 …] [--families LocalCharges FixedPoint]
                              [--output results.json]

Energy and forces of boxes of water: a model file is loaded with ``sums`` direct and mesh, and the
energy function of ``mace-scf-jax md`` evaluates both in turns, each size in a process of its own.
Weights are random, which is good for speed; deviations are those of the sums.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

SUMS = ("direct", "mesh")
SIZES = (192, 384, 648, 1000, 1536, 3000)


def measure(family: str, atoms: int, seconds: float) -> dict:
    """Times and deviations of one size, in this process."""
    import jax
    import numpy as np
    from jax_worker import batch_of
    from self_consistency_worker import settings_of
    from timing import peak_memory_mb, time_in_turns
    from water import water_box

    from mace_scf_jax import energy_function, load_model
    from mace_scf_jax.models import build
    from mace_scf_jax.simulate import Model

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(energy_fn, positions, neighbours):
        results = energy_fn.results(positions, neighbours)
        return results.energy, results.forces

    def evaluated(*arguments):
        return jax.block_until_ready(evaluate(*arguments))

    settings = settings_of(family)
    graph = batch_of([water_box(24)], settings, "float64", "per_atom")
    parameters = jax.jit(build(settings).init)(jax.random.key(0), graph)["params"]
    box = water_box(atoms)
    functions, found, meshes = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "water.model.safetensors"
        Model(settings, parameters).save(path)
        for sums in SUMS:
            energy_fn, prepare = energy_function(load_model(path, sums=sums))
            neighbours = prepare(box)
            meshes[sums] = neighbours.graph.mesh
            positions = jax.numpy.asarray(box.positions)
            functions[sums] = functools.partial(evaluated, energy_fn, positions, neighbours)
            found[sums] = functions[sums]()
    times = time_in_turns(functions, seconds=seconds, least=3)
    (energy, forces), (other, other_forces) = found["direct"], found["mesh"]
    scale = float(np.sqrt(np.mean(np.square(forces))))
    return {
        "family": family,
        "atoms": len(box),
        "times": times,
        "mesh": dataclasses.asdict(meshes["mesh"]),
        "energy_deviation_per_atom": abs(float(energy - other)) / len(box),
        "force_deviation": float(np.max(np.abs(forces - other_forces))),
        "force_scale": scale,
        "peak_memory_mb": peak_memory_mb(),
    }


def show(results: list[dict]) -> None:
    """Print a table of the results."""
    table = Table(title="Energy and forces, milliseconds (shortest of the calls)")
    for name in ("model", "atoms", "direct", "mesh", "ratio", "grid", "max |ΔF| / rms F"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for one in results:
        direct, mesh = (1e3 * one["times"][sums]["min_s"] for sums in SUMS)
        table.add_row(
            one["family"],
            str(one["atoms"]),
            f"{direct:.0f}",
            f"{mesh:.0f}",
            f"{direct / mesh:.2f}",
            "×".join(map(str, one["mesh"]["shape"])) + f", p = {one['mesh']['order']}",
            f"{one['force_deviation'] / one['force_scale']:.0e}",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["LocalCharges", "FixedPoint"])
    parser.add_argument("--atoms", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=8.0, help="for each way and size")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", action="store_true", help="one size in this process, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.families[0], given.atoms[0], given.seconds)))
        return
    results = []
    for family in given.families:
        for atoms in given.atoms:
            words = [sys.executable, __file__, "--one", "--families", family]
            words += ["--atoms", str(atoms), "--seconds", str(given.seconds)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{family}, {atoms} atoms: {done.stderr.strip().splitlines()[-1:]}")
                continue
            results.append(json.loads(done.stdout.splitlines()[-1]))
            if given.output is not None:
                given.output.write_text(json.dumps(results, indent=1))
    show(results)


if __name__ == "__main__":
    main()
