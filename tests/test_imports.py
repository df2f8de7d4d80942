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


def test_the_help_of_every_command_needs_no_jax():
    printed = imported_by(
        "import contextlib, sys\n"
        "from mace_scf_jax_cli.main import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([command, '--help'])\n"
        "    assert 'jax' not in sys.modules, command"
    )
    assert "argparse" in printed
    assert printed.isdisjoint({"jax", "flax", *SLOW} - {"h5py", "scipy.signal"})
