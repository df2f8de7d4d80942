"""What a model file holds, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.models.model_file import ModelFile
from mace_scf_jax.models.settings import ModelSettings


def describe(content: ModelFile) -> dict[str, Any]:
    """Family, elements, sizes, choices and record of a model, as plain data.

    Args:
        content: of its file.

    Returns:
        ``family``; ``elements``, by symbol with isolated-atom energy (eV) and, if the model has
        them, formal charge (e); ``parameters``, their number altogether and by part; ``dtype``;
        ``cutoff`` and ``receptive_field`` in Å; ``backbone``; ``electrostatics`` with its
        reciprocal cutoff (1/Å); further settings of the family; ``record``; ``checksum``.

    Raises:
        ValueError: the settings describe no model of this version.
    """
    settings = ModelSettings.of_file(content)
    backbone = settings.backbone
    leaves = jax.tree.leaves(content.parameters)
    description: dict[str, Any] = {
        "family": settings.family,
        "elements": _elements(settings),
        "parameters": {
            "all": _count(content.parameters),
            **{name: _count(part) for name, part in content.parameters.items()},
        },
        "dtype": ", ".join(sorted({str(np.asarray(leaf).dtype) for leaf in leaves})),
        "cutoff": backbone.r_max,
        "receptive_field": backbone.r_max * backbone.num_interactions,
        "backbone": _without(content.settings["backbone"], ("elements", "r_max")),
    }
    if settings.electrostatics is not None:
        description["electrostatics"] = {
            **content.settings["electrostatics"],
            "kspace_cutoff": settings.electrostatics.kspace_cutoff,
        }
    description |= _without(settings.of_family.store(settings.own), ("formal_charges",))
    return description | {"record": content.record, "checksum": content.checksum}


def _elements(settings: ModelSettings) -> dict[str, dict[str, float]]:
    elements: dict[str, dict[str, float]] = {}
    formal_charges = getattr(settings.own, "formal_charges", None)
    for index, number in enumerate(settings.elements):
        entry = {"atomic_energy": settings.atomic_energies[index]}
        if formal_charges is not None:
            entry["formal_charge"] = formal_charges[index]
        elements[chemical_symbols[number]] = entry
    return elements


def _count(parameters: Any) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(parameters))


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
