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
    if settings.dispersion is not None:
        description["dispersion"] = content.settings["dispersion"]
    description |= _without(settings.of_family.store(settings.own), ("formal_charges",))
    return description | {"record": content.record, "checksum": content.checksum}


def headline(
    settings: ModelSettings, parameters: Mapping[str, Any], record: Mapping[str, Any]
) -> str:
    """A model in one line: family, elements, size, cutoff in Å, where its weights are from.

    Args:
        settings: of the model.
        parameters: what it has learned.
        record: how it was made.
    """
    told = [
        settings.family,
        f"elements {' '.join(chemical_symbols[number] for number in settings.elements)}",
        f"{_count(parameters)} parameters",
        f"r_max {settings.backbone.r_max}",
    ]
    if settings.dispersion is not None:
        told.append(f"dispersion {settings.dispersion.words}")
    if "stage" in record:
        told.append(f"stage {record['stage']}")
    return f"Model({', '.join(told)})"


def summarise(content: ModelFile) -> dict[str, str]:
    """What a user of a model wants to know first, in words by name.

    Args:
        content: of its file.

    Raises:
        ValueError: the settings describe no model of this version.
    """
    settings, record = ModelSettings.of_file(content), content.record
    backbone, density = settings.backbone, settings.electrostatics
    dtypes = {str(np.asarray(leaf).dtype) for leaf in jax.tree.leaves(content.parameters)}
    summary = {
        "family": settings.family,
        "elements": " ".join(chemical_symbols[number] for number in settings.elements),
        **_isolated_atoms(settings),
        "parameters": f"{_count(content.parameters)} ({', '.join(sorted(dtypes))})",
        "cutoff": f"{backbone.r_max:g} Å, layers: {backbone.num_interactions}",
    }
    if density is not None:
        summary["electrostatics"] = (
            f"multipoles up to l = {density.max_l}, Gaussians of {density.smearing_width:g} Å, "
            f"pbc_handling {density.boundary.value}"
        )
        if density.eps_infty != 1.0:
            summary["electrostatics"] += f", eps_infty {density.eps_infty:g}"
        if density.keep_neutral:
            summary["electrostatics"] += ", keep_neutral"
    if settings.dispersion is not None:
        summary["dispersion"] = settings.dispersion.words
    if "name" in record:
        summary["made by"] = "run " + ", ".join(
            f"{word}{record[name]:{form}}"
            for name, word, form in _MAKING
            if record.get(name) is not None
        )
    if "imported_from" in record:
        summary["imported from"] = str(record["imported_from"])
    for name, members in record.get("data", {}).items():
        labels = ", ".join(members["labels"])
        summary[f"{name} set"] = f"{members['structures']} structures with {labels}"
    for name, head in record.get("heads", {}).items():
        keys = {**head.get("info_keys", {}), **head.get("arrays_keys", {})}
        summary[f"keys of {name}" if settings.heads else "keys"] = ", ".join(
            f"{name}: {key}" for name, key in keys.items() if key
        )
    return summary | {"checksum": content.checksum}


def _isolated_atoms(settings: ModelSettings) -> dict[str, str]:
    """Atomic energies in words, of every head."""
    of_heads: Any = {"": settings.atomic_energies}
    if settings.heads:
        of_heads = dict(zip(settings.heads, settings.atomic_energies, strict=True))
    symbols = [chemical_symbols[number] for number in settings.elements]
    told = {
        head: ", ".join(
            f"{symbol} {energy:.3f}" for symbol, energy in zip(symbols, of_head, strict=True)
        )
        for head, of_head in of_heads.items()
    }
    return {
        f"isolated atoms{f' of {head}' if head else ''} / eV": words for head, words in told.items()
    }


_MAKING = (
    ("name", "", ""),
    ("stage", "stage ", ""),
    ("epoch", "epoch ", ""),
    ("validation_loss", "validation loss ", ".4g"),
)
"""Entries of a record that tell where weights are from, what they are called, and their format."""


def _elements(settings: ModelSettings) -> dict[str, dict[str, float]]:
    elements: dict[str, dict[str, float]] = {}
    formal_charges = getattr(settings.own, "formal_charges", None)
    for index, number in enumerate(settings.elements):
        energies: Any = settings.atomic_energies
        if settings.heads:
            of_heads = zip(settings.heads, energies, strict=True)
            entry = {f"atomic_energy of {head}": row[index] for head, row in of_heads}
        else:
            entry = {"atomic_energy": energies[index]}
        if formal_charges is not None:
            entry["formal_charge"] = formal_charges[index]
        elements[chemical_symbols[number]] = entry
    return elements


def _count(parameters: Any) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(parameters))


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
