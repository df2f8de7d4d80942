"""What importing a part of the package brings along: nothing slow before it is needed."""

from __future__ import annotations

import subprocess
import sys

SLOW = ("e3nn_jax", "sympy", "optax", "jaxopt", "h5py", "matplotlib", "scipy.signal")
"""Packages that simulating with a model does not need, or not before something is computed."""


def imported_by(statement: str) -> set[str]:
    """Names of the modules that a fresh process has imported after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_calculator_brings_nothing_slow_along():
    plain = imported_by("import jax, ase.io, ase.calculators.calculator")
    found = imported_by("from mace_scf_jax.simulate import MACESCFCalculator") - plain
    assert found.isdisjoint(SLOW)
    assert not [name for name in found if name.startswith("mace_scf_jax.training")]
