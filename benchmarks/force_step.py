"""What one warm step of the ASE calculator runs on the host: files, functions, calls.

    python benchmarks/force_step.py [--model MODEL] [--structure START.xyz] [--atoms 24]

Counts the Python functions of the package that run between ``atoms.get_forces()`` and the forces,
after the atoms have moved a little and everything is compiled. Self-consistent models start warm.
Without a model its weights are random.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import numpy as np

import mace_scf_jax

PACKAGE = Path(mace_scf_jax.__file__).parent
Calls = collections.Counter[tuple[str, str]]
"""Calls by file, relative to the package, and function."""


def count_calls(run: Callable[[], Any]) -> Calls:
    """Calls of functions of the package while something runs."""
    calls: Calls = collections.Counter()

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls[str(path.relative_to(PACKAGE)), frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def warm_force_step(atoms: ase.Atoms, steps_before: int = 3) -> Calls:
    """Calls of one force step after others.

    Args:
        atoms: with a calculator; they move.
        steps_before: steps that compile and warm up.
    """
    rng = np.random.default_rng(0)

    def step() -> None:
        atoms.positions += rng.normal(scale=1e-3, size=atoms.positions.shape)
        atoms.get_forces()

    for _ in range(steps_before):
        step()
    return count_calls(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model file; random weights without")
    parser.add_argument("--structure", help="extended XYZ file; water without")
    parser.add_argument("--atoms", type=int, default=24, help="of the water")
    given = parser.parse_args()
    from ase.io import read
    from jax_worker import random_model
    from water import water_box

    from mace_scf_jax.simulate import MACESCFCalculator, WarmStart, load_model

    model = load_model(given.model) if given.model else random_model()
    atoms = read(given.structure) if given.structure else water_box(given.atoms)
    warm_start = WarmStart() if model.is_self_consistent else None
    atoms.calc = MACESCFCalculator(model, warm_start=warm_start)
    calls = warm_force_step(atoms)
    for (file, function), count in sorted(calls.items()):
        print(f"{count:4d}  {file}  {function}")
    files = {file for file, _ in calls}
    print(f"{len(files)} files, {len(calls)} functions, {calls.total()} calls")


if __name__ == "__main__":
    main()
