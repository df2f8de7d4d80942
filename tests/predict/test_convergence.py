"""Structures whose multipoles were not found, in every family that searches for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_models import molecule, tiny_model

from mace_scf_jax.predict.convergence import (
    NotConvergedError,
    NotConvergedWarning,
    has_converged,
)
from mace_scf_jax.predict.model import Model
from mace_scf_jax.scf import SolverStatus
from mace_scf_jax.simulate import MACESCFCalculator

NO_MINIMUM = (
    r"multipoles not at the minimum of their energy \(max steps\) after 1 steps, "
    r"residual \S+ eV/\(e Å\^l\), charge 1 e. To do: allow more steps"
)


@pytest.fixture(scope="module")
def hasty():
    """An energy functional that may take a single step towards its minimum."""
    model = tiny_model("EnergyFunctional")
    hurried = dataclasses.replace(model.settings.own, max_steps=1)
    return Model(dataclasses.replace(model.settings, own=hurried), model.parameters)


def test_a_minimum_that_was_not_found_is_told(hasty):
    with pytest.raises(NotConvergedError, match="structure 0: " + NO_MINIMUM):
        hasty.predict(molecule(), not_converged="raise")
    with pytest.warns(NotConvergedWarning, match=NO_MINIMUM):
        prediction = hasty.predict(molecule())
    assert prediction["solver_status"] is SolverStatus.MAX_STEPS
    assert not has_converged(prediction)


def test_a_calculator_does_not_return_numbers_beside_the_minimum(hasty):
    atoms = molecule()
    atoms.calc = MACESCFCalculator(hasty)
    with pytest.raises(NotConvergedError, match=NO_MINIMUM):
        atoms.get_potential_energy()
    atoms.calc = MACESCFCalculator(hasty, not_converged="ignore")
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.calc.results["solver_status"] is SolverStatus.MAX_STEPS


def test_models_that_search_for_nothing_always_pass():
    assert has_converged({"energy": 0.0})
    assert has_converged({"energy": 0.0, "scf_status": SolverStatus.CONVERGED})
    assert not has_converged({"scf_status": 0, "solver_status": 1})
