"""What a model says about one structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.outputs import OUTPUTS, ends_of_searches
from mace_scf_jax.scf.status import SolverStatus

Prediction = dict[str, Any]
"""Outputs for one structure by name, which `mace_scf_jax.models.OUTPUTS` describes: with a row for
each atom, or the row of the structure; how a search ended as a `SolverStatus`."""


def split_outputs(outputs: Mapping[str, np.ndarray], graph: Graph) -> list[Prediction]:
    """The outputs of a batch, one prediction per real graph.

    Args:
        outputs: arrays of the batch by name.
        graph: the batch.
    """
    predictions = []
    for index in np.flatnonzero(graph.graph_mask):
        own = np.asarray(graph.slots[index])[np.asarray(graph.slot_mask[index])]
        prediction = {
            name: values[own if OUTPUTS[name].per_atom else index]
            for name, values in outputs.items()
        }
        for end in ends_of_searches(prediction):
            prediction[end.name] = SolverStatus(prediction[end.name])
        predictions.append(prediction)
    return predictions
