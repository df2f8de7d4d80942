"""Models from potentials of ænet, and potentials of ænet from models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax._version import __version__
from mace_scf_jax.aenet.potential import (
    AenetFileError,
    ElementPotential,
    FeatureRange,
    Layer,
    TrainingSummary,
)
from mace_scf_jax.backbones import ChebyshevSettings, FeatureStatistics
from mace_scf_jax.backbones.chebyshev.normalisation import deviations_of_moments
from mace_scf_jax.models import ModelSettings
from mace_scf_jax.predict.model import Model

FAMILY = "ChebyshevANN"
RECORD = "aenet"
"""Entry of the record of a model that holds what its files told beside the model, by symbol."""
LARGEST_LOSS = 1e-10
"""Relative change of a deviation by the way it is stored that is too much."""
_ITEMS = {
    "species": (13, "species"),
    "rad_cutoff": (20, "radial radius"),
    "rad_order": (20, "radial order"),
    "ang_cutoff": (20, "angular radius"),
    "ang_order": (20, "angular order"),
}
"""Where a file has the parts of a descriptor that all files of a model have to share."""


def model_of(potentials: Sequence[ElementPotential], dtype: Any = np.float64) -> Model:
    """Return the model of one potential for each element.

    Radii and orders have to be the same. The smallest distance is the smallest of the files, as in
    ænet.

    Args:
        dtype: precision of the parameters.

    Raises:
        AenetFileError: an element is missing or comes twice, or descriptors differ.
    """
    by_element = _sorted(potentials)
    found = list(by_element.values())
    descriptor = dataclasses.replace(
        found[0].descriptor, min_cutoff=min(each.descriptor.min_cutoff for each in found)
    )
    backbone = ChebyshevSettings(
        elements=tuple(by_element),
        descriptor=descriptor,
        arch=tuple(each.architecture for each in found),
        features=_statistics([each.features for each in found]),
        E_scaling=tuple(each.E_scaling for each in found),
        E_shift=tuple(each.E_shift for each in found),
    )
    settings = ModelSettings(
        family=FAMILY,
        backbone=backbone,
        atomic_energies=tuple(each.atomic_energies[each.element] for each in found),
    )
    networks = {
        chemical_symbols[each.element]: {
            f"{kind}_{layer}": np.ascontiguousarray(values, dtype)
            for layer, arrays in enumerate(each.layers)
            for kind, values in zip(("weight", "bias"), arrays, strict=True)
        }
        for each in found
    }
    return Model(settings, {"backbone": {"energy": networks}}, _record(found))


def _sorted(potentials: Sequence[ElementPotential]) -> dict[int, ElementPotential]:
    """Potentials by element, ascending, which belong to one model."""
    first, by_element = potentials[0], {}
    for each in potentials:
        if each.element in by_element:
            raise AenetFileError(
                f"{each.source}: item 11, element of the centre: found "
                f"{chemical_symbols[each.element]} again, which {by_element[each.element].source} "
                "has; expected one file for each element"
            )
        by_element[each.element] = each
        for field, (item, name) in _ITEMS.items():
            ours, theirs = getattr(each.descriptor, field), getattr(first.descriptor, field)
            if ours != theirs:
                expected, found = (_in_words(field, value) for value in (theirs, ours))
                raise AenetFileError(
                    f"{each.source}: item {item}, {name}: expected {expected} as in "
                    f"{first.source}, found {found}; all elements of a model share one descriptor"
                )
    missing = [z for z in first.descriptor.species if z not in by_element]
    if missing:
        raise AenetFileError(
            f"{first.source}: expected a file for each of its species "
            f"{' '.join(first.descriptor.symbols)}, found none for "
            f"{', '.join(chemical_symbols[z] for z in missing)}"
        )
    return dict(sorted(by_element.items()))


def _in_words(field: str, value: Any) -> str:
    return " ".join(chemical_symbols[z] for z in value) if field == "species" else f"{value:g}"


def _statistics(features: Sequence[FeatureRange]) -> FeatureStatistics:
    """Rows of all elements, or one row if they are the same."""
    std = [deviations_of_moments(each.average, each.second_moment) for each in features]
    known = any(np.any(each.minimum) or np.any(each.maximum) for each in features)
    columns = {
        "mean": [each.average for each in features],
        "std": std,
        "minimum": [each.minimum for each in features] if known else None,
        "maximum": [each.maximum for each in features] if known else None,
    }
    given = [rows for rows in columns.values() if rows is not None]
    common = all(np.array_equal(row, rows[0]) for rows in given for row in rows)
    return FeatureStatistics(
        **{
            name: None if rows is None else tuple(map(tuple, rows[:1] if common else rows))
            for name, rows in columns.items()
        }
    )


def _record(potentials: Sequence[ElementPotential]) -> dict[str, Any]:
    """What the files tell beside the model, and what is known of its training set."""
    training = potentials[0].training
    data = {"structures": training.structures, "atoms": training.atoms}
    return {
        RECORD: {
            chemical_symbols[each.element]: {
                "description": each.description,
                "training_set": each.training.name,
                "training_energies": list(each.training.energies),
                "atoms_behind_statistics": each.features.atoms,
            }
            for each in potentials
        },
        **({"data": {"train": data}} if training.structures else {}),
        "version": __version__,
    }


def potentials_of(model: Model) -> list[ElementPotential]:
    """Return the potential of each element of a model, in double precision.

    Statistics are those of the model. Where a file cannot hold them to 1e-10 of each deviation,
    or features are not normalised, they become part of the first layer.

    Raises:
        AenetFileError: the model has charges, or is no network on descriptors.
    """
    backbone = _backbone(model)
    networks = model.parameters["backbone"]["energy"]
    energies = dict(zip(backbone.elements, model.settings.atomic_energies, strict=True))
    in_order = {z: energies[z] for z in backbone.descriptor.species}
    told = model.record.get(RECORD, {})
    potentials = []
    for index, element in enumerate(backbone.elements):
        symbol = chemical_symbols[element]
        about = told.get(symbol, {})
        layers: list[Layer] = [
            (
                np.asarray(networks[symbol][f"weight_{layer}"], np.float64),
                np.asarray(networks[symbol][f"bias_{layer}"], np.float64),
            )
            for layer in range(len(backbone.arch[index]) + 1)
        ]
        first, features = _stored(layers[0], backbone.features, index)
        potentials.append(
            ElementPotential(
                source="",
                description=about.get("description") or f"mace-scf-jax {__version__}",
                element=element,
                descriptor=backbone.descriptor,
                architecture=backbone.arch[index],
                layers=(first, *layers[1:]),
                features=dataclasses.replace(
                    features, atoms=about.get("atoms_behind_statistics", 0)
                ),
                E_scaling=backbone.E_scaling[index],
                E_shift=backbone.E_shift[index],
                atomic_energies=in_order,
                training=_training(model.record, about),
            )
        )
    return potentials


def _backbone(model: Model) -> ChebyshevSettings:
    """The settings of the networks of a model that ænet can have."""
    settings = model.settings
    if settings.family != FAMILY or not isinstance(settings.backbone, ChebyshevSettings):
        why = ", which have no charges" if settings.electrostatics is not None else ""
        _refuse(f"expected a model of the family {FAMILY}, found {settings.family}{why}")
    unused = [
        symbol
        for z, symbol in zip(
            settings.backbone.descriptor.species, settings.backbone.descriptor.symbols, strict=True
        )
        if z not in settings.elements
    ]
    if unused:
        _refuse(f"expected a network for every species, found none for {', '.join(unused)}")
    if settings.backbone.descriptor.min_cutoff == 0.0:
        _refuse(
            "expected a min_cutoff above 0, by which ænet decides how much memory its lists of "
            "neighbours need, found 0"
        )
    return settings.backbone


def _refuse(problem: str) -> NoReturn:
    raise AenetFileError(f"files of ænet: {problem}")


def _stored(
    layer: Layer, statistics: FeatureStatistics | None, index: int
) -> tuple[Layer, FeatureRange]:
    """The first layer of an element, and statistics of which a file loses nothing."""
    weights, biases = layer
    size = len(weights)
    if statistics is None:
        nothing = np.zeros(size)
        return layer, FeatureRange(nothing, nothing, nothing, np.ones(size))
    row = index if len(statistics.mean) > 1 else 0
    minimum, maximum = (
        np.zeros(size) if rows is None else np.array(rows[row])
        for rows in (statistics.minimum, statistics.maximum)
    )
    mean, std = np.array(statistics.mean[row]), np.array(statistics.std[row])
    mean = np.where(std > 0.0, mean, 0.0)
    second_moment = std**2 + mean**2
    if np.all(np.abs(deviations_of_moments(mean, second_moment) - std) <= LARGEST_LOSS * std):
        return layer, FeatureRange(minimum, maximum, mean, second_moment)
    _, scale = (rows[row] for rows in statistics.centre_and_scale())
    folded = (scale[:, None] * weights, biases - (scale * mean) @ weights)
    return folded, FeatureRange(minimum, maximum, np.zeros(size), np.ones(size))


def _training(record: Mapping[str, Any], about: Mapping[str, Any]) -> TrainingSummary:
    """What the record of a model knows of its training set."""
    data = record.get("data", {}).get("train", {})
    known = data.get("interaction_energy_per_atom", {})
    energies = [known.get(name, 0.0) for name in ("least", "largest", "mean")]
    return TrainingSummary(
        name=about.get("training_set") or str(record.get("name") or "unknown"),
        atoms=data.get("atoms", 0),
        structures=data.get("structures", 0),
        energies=tuple(about.get("training_energies", energies)),
    )
