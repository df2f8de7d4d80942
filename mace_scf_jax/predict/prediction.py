"""What a model says about one structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import SCFState
from mace_scf_jax.models.outputs import OUTPUTS, ends_of_searches
from mace_scf_jax.scf.status import SolverStatus

Prediction = dict[str, Any]
"""Outputs for one structure by name, which `mace_scf_jax.models.OUTPUTS` describes: with a row for
each atom, or the row of the structure; how a search ended as a `SolverStatus`."""


def split_outputs(outputs: Mapping[str, np.ndarray], graph: Graph) -> list[Prediction]:
    """The outputs of a batch, one prediction per real graph.

    Args:
        outputs: arrays of the batch by name.
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


def state_of_batch(solved: Sequence[Mapping[str, Any]], graph: Graph) -> SCFState:
    """Multipoles and Fermi levels of single structures as those of their batch.

    Args:
        solved: predictions, or anything else with ``multipoles`` [atoms, components] (e Å^l) and
            ``fermi_level`` (eV), for each real graph of the batch.
        graph: the batch, as NumPy arrays.

    Raises:
        DataError: one of them lacks multipoles or a Fermi level, or has those of other atoms.
    """
    real = np.flatnonzero(graph.graph_mask)
    dtype = graph.dtype
    levels = np.zeros(graph.num_graphs, dtype)
    multipoles = None
    for index, (own, entry) in enumerate(zip(real, solved, strict=True)):
        for name in ("multipoles", "fermi_level"):
            if name not in entry:
                raise DataError(f"start, structure {index}: expected {name!r}, found none")
        members = graph.slots[own][graph.slot_mask[own]]
        values = np.asarray(entry["multipoles"], dtype)
        if values.ndim != 2 or len(values) != len(members):
            raise DataError(
                f"start, structure {index}: expected multipoles of {len(members)} atoms, found an "
                f"array of shape {values.shape}"
            )
        if multipoles is None:
            multipoles = np.zeros((graph.num_atoms, values.shape[1]), dtype)
        multipoles[members] = values
        levels[own] = entry["fermi_level"]
    return SCFState(multipoles, levels)
