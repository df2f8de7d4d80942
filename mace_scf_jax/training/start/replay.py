"""Replay: structures of the start model as a head of their own, so that nothing is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KEYS_OF_HEADS, KeySpecification, specification
from mace_scf_jax.data.properties import ATOM_INPUTS, GRAPH_INPUTS
from mace_scf_jax.data.reading import ReadStructures, to_configurations
from mace_scf_jax.data.replay import Replay
from mace_scf_jax.training.start.options import ReplayOptions
from mace_scf_jax.training.start.start_model import START, StartModel

logger = logging.getLogger(__name__)

HEAD = "replay"
"""Name of the head."""
_INPUTS = {*GRAPH_INPUTS, *ATOM_INPUTS}
_PREDICTED = {
    "info_keys": {"energy": "start_energy", "stress": "start_stress"},
    "arrays_keys": {"forces": "start_forces"},
}
"""Keys of labels that the start model predicts."""


def with_replay(heads: Any, replay: ReplayOptions) -> dict[str, Any]:
    """Return a block `heads` with the head of replay.

    A single head becomes that of all structures that name none.

    Args:
        heads: the block as it was written.
        replay: options of the run.

    Raises:
        DataError: the name is taken, or keys make no sense.
    """
    if not isinstance(heads, Mapping) or not heads:
        return heads  # another problem, which is told
    if HEAD in heads:
        raise DataError(f"heads: found {HEAD!r}, the name of the head of the option 'replay'")
    own = dict(heads)
    first = next(iter(own))
    if len(own) == 1 and isinstance(own[first], Mapping):
        own[first] = {"files": "*", **own[first]}
    keys = {name: dict(own[first].get(name) or {}) for name in KEYS_OF_HEADS}
    if replay.keys is not None:
        given = specification(replay.keys)
        keys = {"info_keys": dict(given.info_keys), "arrays_keys": dict(given.arrays_keys)}
    if replay.labels == START:
        keys = {
            place: {name: key for name, key in of_place.items() if name in _INPUTS}
            | _PREDICTED[place]
            for place, of_place in keys.items()
        }
    weights = {
        name: replay.weight
        for of_place in keys.values()
        for name in of_place
        if name not in (*_INPUTS, "head")
    }
    return own | {HEAD: keys | {"E0s": START, "loss_weights": weights}}


def replay_of(options: Any, start: StartModel) -> Replay | None:
    """Return where the structures to replay are, and what labels them.

    Args:
        options: of the run.
        start: the start model.
    """
    chosen = options.replay
    if chosen is None:
        return None

    def label(structures: ReadStructures, keys: KeySpecification) -> None:
        without = keys.only(_INPUTS)
        found = to_configurations(structures, without, multipoles_max_l=0)
        logger.info("Replay: the start model labels %d structures", len(found))
        predictions = start.predicted(found, stress=options.compute_stress)
        for atoms, predicted in zip(structures.atoms, predictions, strict=True):
            for place, stored in (("info_keys", atoms.info), ("arrays_keys", atoms.arrays)):
                for name, key in _PREDICTED[place].items():
                    if name in predicted:
                        stored[key] = np.asarray(predicted[name], np.float64)

    return Replay(
        file=chosen.file,
        head=HEAD,
        samples=chosen.samples,
        label=label if chosen.labels == START else None,
    )
