"""Modules that have moved are still found under the names that the documentation used before."""

from __future__ import annotations

import importlib
import sys

import pytest

from mace_scf_jax._moved import MOVED

DOCUMENTED = {
    "mace_scf_jax.exchange": "import_model",
    "mace_scf_jax.io": "load_model_file",
    "mace_scf_jax.models.qeq": "equilibrate",
    "mace_scf_jax.simulate.model": "load_model",
    "mace_scf_jax.training.history": "TrainingHistory",
    "mace_scf_jax.verification": "verify",
}


@pytest.mark.parametrize("old", MOVED)
def test_old_names_give_the_module_itself_and_say_where_it_is(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old]}"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(MOVED[old])
    assert found.__spec__.name == MOVED[old]
    if old in DOCUMENTED:
        assert hasattr(found, DOCUMENTED[old])


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("mace_scf_jax", "Model energy_function load_model train"),
        (
            "mace_scf_jax.simulate",
            "CommitteeCalculator CoulombCalculator MACESCFCalculator WarmStart density_at "
            "load_committee load_model potential_at predict_response predicted_multipoles "
            "rank uncertainty volume_grid",
        ),
        ("mace_scf_jax.simulate.jax_md_hooks", "jax_md_functions"),
        ("mace_scf_jax.data.reciprocal", "half_space_indices"),
        ("mace_scf_jax.data.structure", "prepare"),
        ("mace_scf_jax.data.stored_set", "open_stored"),
        ("mace_scf_jax.data.reading", "read_atoms"),
        ("mace_scf_jax.data.configuration", "from_atoms"),
        ("mace_scf_jax.data.batching", "BatchLoader collate"),
        ("mace_scf_jax.models", "SelfConsistency dipole_response evaluate infrared_intensities"),
        ("mace_scf_jax.scf", "Auto Differentiation FixedPointProblem LinearSolver solve"),
        ("mace_scf_jax.electrostatics", "ElectrostaticsSettings prepare"),
        ("mace_scf_jax.training.committee", "train_committee"),
    ],
)
def test_documented_names_are_where_the_documentation_says(module, names):
    for name in names.split():
        assert hasattr(importlib.import_module(module), name)
