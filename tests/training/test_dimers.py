"""Pairs of atoms at short distances, before and after training."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from start_models import drawn, start_settings

from mace_scf_jax.training.start.dimers import attracting_pairs, compare_pairs

ELEMENTS = (1, 8)


@pytest.fixture(scope="module")
def model():
    """With the repulsion of nuclei, and weights with which it is stronger than all else."""
    settings = start_settings().with_elements(ELEMENTS)
    return settings, jax.tree.map(np.asarray, drawn(settings))


def attracting(parameters):
    """The same with readouts that make all near neighbours attract."""

    def much(path, leaf):
        return -1e4 * np.abs(leaf) if "readout_0" in jax.tree_util.keystr(path) else leaf

    return jax.tree_util.tree_map_with_path(much, parameters)


def test_nuclei_repel(model):
    assert attracting_pairs(*model, ELEMENTS) == {}


def test_pairs_that_attract_since_the_training_are_told(model, caplog):
    settings, before = model
    with caplog.at_level("INFO"):
        compare_pairs(settings, before, before, ELEMENTS)
        assert "repel each other as before training" in caplog.text
        caplog.clear()
        after = attracting(before)
        compare_pairs(settings, before, after, ELEMENTS)
    assert "Pairs of atoms attract each other at short distances since the training:" in caplog.text
    assert "(not at all before)" in caplog.text
    caplog.clear()
    compare_pairs(settings, after, after, ELEMENTS)
    assert not caplog.records
