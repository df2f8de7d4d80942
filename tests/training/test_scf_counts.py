"""Lines on the steps of self-consistent solutions, of a made-up history."""

import logging

import jax
import jax.numpy as jnp
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.training.loop.devices import Devices
from mace_scf_jax.training.loop.scf_counts import SCFCounts, log_steps, scf_steps

GRAPH = tiny_graph(0)
"""Two structures and one of padding."""


def logged(history, caplog, **counts) -> list[str]:
    steps = scf_steps({"scf_history": jnp.array(history)}, GRAPH, Devices())
    with caplog.at_level(logging.DEBUG, logger="mace_scf_jax"):
        log_steps(jax.device_get(steps), SCFCounts(structures=2, **counts))
    return caplog.messages


def test_structures_that_end_one_after_the_other(caplog):
    history = [[0.5, 0.01, 1e-7, 1e-7], [0.1, 1e-8, 1e-8, 1e-8], [9.0, 8.0, 7.0, 6.0]]
    assert logged(history, caplog) == [
        "step 0, 2 of 2 structures, abs_change(s)=5.000e-01",
        "step 1, 2 of 2 structures, abs_change(s)=1.000e-02",
        "step 2, 1 of 2 structures, abs_change(s)=1.000e-07",
        "SCF converged at step 2, abs_change(s)=1.000e-07",
    ]


@pytest.mark.parametrize(
    ("counts", "end"),
    [
        (
            {"diverged": 1},
            "SCF diverged at step 1, abs_change(s)=6.000e+00: 1 of 2 structures not "
            "self-consistent (1 diverged)",
        ),
        (
            {"fallback": 1},
            "SCF ended at step 1, abs_change(s)=6.000e+00: 0 of 2 structures not "
            "self-consistent, 1 fell back to unroll_scf",
        ),
    ],
)
def test_an_end_without_solution(counts, end, caplog):
    history = [[0.5, 6.0, 6.0], [0.1, 0.2, 0.2], [0.0, 0.0, 0.0]]
    assert logged(history, caplog, **counts)[-1] == end


def test_nothing_is_said_where_nothing_was_solved_for(caplog):
    assert scf_steps({}, GRAPH, Devices()) == {}
    with caplog.at_level(logging.DEBUG, logger="mace_scf_jax"):
        log_steps({}, SCFCounts())
    assert caplog.messages == []
