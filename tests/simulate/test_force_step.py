"""The host has little to do in a warm step of the ASE calculator."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from reference_models import TRAINED, reference_atoms, reference_model
from tiny_models import molecule, periodic, tiny_model

from mace_scf_jax.simulate import MACESCFCalculator, WarmStart

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "force_step.py"
spec = importlib.util.spec_from_file_location("force_step", SCRIPT)
force_step = importlib.util.module_from_spec(spec)
spec.loader.exec_module(force_step)


@pytest.mark.parametrize("start", ["molecule", "crystal", "self-consistent"])
def test_few_files_and_calls(start):
    if start == "self-consistent":
        atoms, model = reference_atoms(TRAINED)[0], reference_model(TRAINED)
        atoms.calc = MACESCFCalculator(model, warm_start=WarmStart())
    else:
        atoms = molecule() if start == "molecule" else periodic()
        atoms.calc = MACESCFCalculator(tiny_model())
    calls = force_step.warm_force_step(atoms)
    assert calls["simulate/evaluator.py", "Evaluator.evaluate"] == 1
    assert len({file for file, _ in calls}) <= 6, calls
    assert calls.total() <= 40, calls
