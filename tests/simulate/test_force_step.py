"""The host has little to do in a warm step of the ASE calculator."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_models import molecule, periodic, tiny_model

from mace_scf_jax.models import SelfConsistency
from mace_scf_jax.scf import Dense
from mace_scf_jax.simulate import MACESCFCalculator, WarmStart

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "force_step.py"
spec = importlib.util.spec_from_file_location("force_step", SCRIPT)
force_step = importlib.util.module_from_spec(spec)
spec.loader.exec_module(force_step)


@pytest.mark.parametrize(
    "start", ["molecule", "crystal", pytest.param("self-consistent", marks=pytest.mark.slow)]
)
def test_few_files_and_calls(start):
    atoms = molecule() if start == "molecule" else periodic()
    if start == "self-consistent":
        model = tiny_model("FixedPoint", scf=SelfConsistency(Dense()))
        atoms.calc = MACESCFCalculator(model, warm_start=WarmStart())
    else:
        atoms.calc = MACESCFCalculator(tiny_model())
    calls = force_step.warm_force_step(atoms)
    assert calls["simulate/evaluator.py", "Evaluator.evaluate"] == 1
    assert len({file for file, _ in calls}) <= 6, calls
    assert calls.total() <= 40, calls
