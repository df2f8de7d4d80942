"""Benchmark of molecular dynamics: steps per second of each engine, and the drift of the energy.

    python benchmarks/simulation.py [--model MODEL] [--atoms 24 192 648] [--output results.json]
    python benchmarks/simulation.py --model MODEL --drift-steps 10000

Constant-energy steps of 0.5 fs in boxes of water, by ASE with the calculator, by JAX-MD, and by
the engine of ``mace-scf-jax md``, in turns. Compilation and the first steps are apart. Without a
model its weights are random, which is good for speed only: the drift needs a trained model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from jax_worker import random_model
from rich.console import Console
from rich.table import Table
from water import water_box

from mace_scf_jax import energy_function, load_model
from mace_scf_jax.simulate import MACESCFCalculator, Model, dynamics
from mace_scf_jax.simulate.settings import SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation

TIMESTEP = 0.5
TEMPERATURE = 300.0
NVE = SimulationSettings("nve", timestep=TIMESTEP)
Advance = Callable[[int], None]


def start(atoms: ase.Atoms) -> ase.Atoms:
    moving = atoms.copy()
    if not moving.has("momenta"):
        rng = np.random.default_rng(0)
        MaxwellBoltzmannDistribution(moving, temperature_K=TEMPERATURE, rng=rng)
        Stationary(moving)
    return moving


def with_ase(model: Model, atoms: ase.Atoms) -> Advance:
    atoms.calc = MACESCFCalculator(model)
    return VelocityVerlet(atoms, TIMESTEP * units.fs).run


def with_jax_md(model: Model, atoms: ase.Atoms) -> Advance:
    # Makes arrays when it is imported: memory would not be kept any more (see `jax_worker`).
    from jax_md import simulate, space

    from mace_scf_jax.simulate.jax_md_hooks import jax_md_functions

    neighbor_fn, energy_fn = jax_md_functions(model, atoms)
    init, step = simulate.nve(energy_fn, space.free()[1], dt=TIMESTEP * units.fs)
    positions = jnp.asarray(atoms.positions)
    neighbors = neighbor_fn.allocate(positions)
    state = init(
        jax.random.key(0),
        positions,
        kT=0.0,
        mass=jnp.asarray(atoms.get_masses()),
        momenta=jnp.asarray(atoms.get_momenta()),
        neighbor=neighbors,
    )

    @jax.jit
    def run(state, neighbors, num_steps):
        def body(_, carry):
            state, neighbors = carry
            neighbors = neighbors.update(state.position)
            return step(state, neighbor=neighbors), neighbors

        return jax.lax.fori_loop(0, num_steps, body, (state, neighbors))

    def advance(num_steps: int) -> None:
        nonlocal state, neighbors
        state, neighbors = jax.block_until_ready(run(state, neighbors, num_steps))
        if neighbors.did_buffer_overflow:
            raise RuntimeError("the neighbour list overflowed; start with more room")

    return advance


def with_md(model: Model, atoms: ase.Atoms) -> Advance:
    simulation = Simulation(*energy_function(model), atoms, NVE)

    def advance(num_steps: int) -> None:
        simulation.advance(num_steps)
        jax.block_until_ready(simulation.state)

    return advance


ENGINES = {"ASE": with_ase, "JAX-MD": with_jax_md, "mace-scf-jax md": with_md}


def steps_per_second(
    model: Model, atoms: ase.Atoms, num_steps: int, rounds: int
) -> dict[str, float]:
    """Median over rounds in which each engine has its turn, so that all see the same machine."""
    engines = {name: engine(model, start(atoms)) for name, engine in ENGINES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, advance in engines.items():
            begun = time.perf_counter()
            advance(num_steps if number else 2)
            seconds[name].append(time.perf_counter() - begun)
    return {name: num_steps / float(np.median(spent[1:])) for name, spent in seconds.items()}


def drift(model: Model, atoms: ase.Atoms, num_steps: int) -> dict[str, float]:
    """Slope of the total energy in eV/atom/ps, and its spread about the line."""
    simulation = Simulation(*energy_function(model), atoms, NVE)
    times, energies = [], []
    while simulation.steps_done < num_steps:
        simulation.advance(min(10, num_steps - simulation.steps_done))
        kinetic = dynamics.kinetic_energy(simulation.state.momenta, simulation.masses)
        times.append(simulation.time)
        energies.append(float(simulation.state.evaluation.energy + kinetic) / len(atoms))
    slope, offset = np.polyfit(times, energies, 1)
    spread = np.std(np.array(energies) - slope * np.array(times) - offset)
    return {"eV_per_atom_per_ps": float(slope), "spread_eV_per_atom": float(spread)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model file; random weights without")
    parser.add_argument("--structure", help="extended XYZ file to start from, for the drift")
    parser.add_argument("--atoms", type=int, nargs="*", default=[24, 192, 648])
    parser.add_argument("--steps", type=int, default=20, help="of an engine in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drift-steps", type=int, default=0)
    parser.add_argument("--drift-atoms", type=int, default=192)
    parser.add_argument("--output", default="benchmark_simulation.json")
    given = parser.parse_args()

    model = load_model(given.model) if given.model else random_model()
    results = {"device": jax.devices()[0].device_kind, "steps_per_second": {}}
    table = Table("atoms", *(f"{name}, steps/s" for name in ENGINES), "ASE / JAX-MD")
    for size in given.atoms:
        rates = steps_per_second(model, water_box(size), given.steps, given.rounds)
        results["steps_per_second"][size] = rates
        ratio = rates["ASE"] / rates["JAX-MD"]
        table.add_row(str(size), *(f"{rate:.2f}" for rate in rates.values()), f"{ratio:.2f}")
    Console(width=100).print(table)
    if given.drift_steps:
        atoms = read(given.structure) if given.structure else water_box(given.drift_atoms)
        results["drift"] = drift(model, start(atoms), given.drift_steps)
        print(f"drift {results['drift']}")
    Path(given.output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
