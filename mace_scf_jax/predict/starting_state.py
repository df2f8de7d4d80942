"""Solutions of single structures as the state that a batch of them starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import SCFState


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
    dtype = graph.positions.dtype
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
