"""The summary of how linear mixing converges."""

from __future__ import annotations

import jax
import numpy as np
from tiny_models import molecule, periodic, random_parameters, structure, tiny_settings

from mace_scf_jax.data.collate import collate
from mace_scf_jax.models import build
from mace_scf_jax.scf import SolverStatus
from mace_scf_jax.training.loop.fixed_point_training import (
    FixedPointTraining,
)
from mace_scf_jax.training.records.scf_summary import (
    Convergence,
    convergence_table,
    measure_convergence,
    mixing_values,
)


def training(mixing):
    return FixedPointTraining(
        mode="unroll_scf", scf={"num_scf_steps": 10, "mixing_parameter": mixing}
    )


def test_mixing_values():
    assert mixing_values(FixedPointTraining(mode="direct")) == (0.2,)
    assert mixing_values(training(0.3)) == (0.2,)
    assert mixing_values(training(0.1)) == (0.1, 0.2)


def test_the_table():
    c, m, d = SolverStatus.CONVERGED, SolverStatus.MAX_STEPS, SolverStatus.DIVERGED
    first = Convergence("train", 0.1, np.array([c, c, m, d]), np.array([20, 30, 99, 4]))
    second = Convergence("train", 0.2, np.array([c, c, c, c]), np.array([10, 10, 10, 10]))
    assert first.row() == ("train", "4", "0.1", "50.0", "25.0", "25.0", "25", "89")
    lines = convergence_table([first, second]).splitlines()
    assert [cell.strip() for cell in lines[1].strip("|").split("|")] == [
        "config_type",
        "n",
        "mixing",
        "converged %",
        "other %",
        "diverged %",
        "median steps",
        "p95 steps",
    ]
    assert lines[4].startswith("|--")  # between the blocks


def test_convergence_of_a_model():
    """A map with a weak answer converges at the rate 1 - α; every structure by itself."""
    settings = tiny_settings("FixedPoint", correlation=1)
    module = build(settings)
    structures = [structure(atoms, settings) for atoms in (molecule(), periodic())]
    graph = jax.tree.map(np.asarray, collate(structures))
    params = random_parameters(module, graph)
    params["density_update"] = jax.tree.map(lambda leaf: 1e-3 * leaf, params["density_update"])
    sets = {"valid": lambda: [graph], "train": lambda: [graph, graph]}
    train, valid = measure_convergence(module, params, sets, mixings=(0.2,), constant_charge=False)
    assert (train.set_name, len(train.status), len(valid.status)) == ("train", 4, 2)
    np.testing.assert_array_equal(train.status, SolverStatus.CONVERGED)
    assert 1 <= np.max(train.steps) < np.log(1e-7) / np.log(0.8) + 1
    np.testing.assert_array_equal(train.steps[:2], valid.steps)
