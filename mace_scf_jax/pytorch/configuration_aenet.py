"""Settings of a descriptor potential from what ænet-python saves beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mace_scf_jax.backbones import ChebyshevSettings, Descriptor, FeatureStatistics
from mace_scf_jax.models.settings import ModelSettings

AENET_FAMILY = "ChebyshevANN"
"""The family of all models of ænet."""
AENET_STATE = "model_state_dict"
"""Entry of a saved model that holds its weights."""
AENET_ENTRIES = ("schema_version", "descriptor_config", "architecture", "normalization")
"""Entries that define the model beside its weights."""
ATOMIC_ENERGIES = "atomic_energies"
"""Entry with E0 by symbol; None where training had none."""
SCHEMA_VERSION = "1.0"
_DESCRIPTOR = ("rad_order", "rad_cutoff", "ang_order", "ang_cutoff", "min_cutoff")
_SMALLEST_DEVIATION = 1e-12
"""Below which ænet-python takes no deviation of a feature."""


def aenet_settings(configuration: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a model of ænet-python.

    Args:
        configuration: its `AENET_ENTRIES` and `ATOMIC_ENERGIES`.

    Raises:
        KeyError: an entry is missing.
        ValueError: another schema, or an entry has a value that makes no sense.
    """
    version = configuration["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, found {version}")
    of_descriptor = configuration["descriptor_config"]
    symbols = {_number(symbol): symbol for symbol in of_descriptor["species"]}
    elements = tuple(sorted(symbols))
    normalization = configuration["normalization"]
    scaling, shift = 1.0, 0.0
    if normalization["normalize_energy"]:
        scaling, shift = float(normalization["E_scaling"]), float(normalization["E_shift"])
    backbone = ChebyshevSettings(
        elements=elements,
        descriptor=Descriptor(
            species=tuple(symbols), **{name: of_descriptor[name] for name in _DESCRIPTOR}
        ),
        arch=tuple(
            tuple((int(nodes), str(name).lower()) for nodes, name in layers)
            for layers in (configuration["architecture"][symbols[z]] for z in elements)
        ),
        features=_statistics(normalization),
        E_scaling=(scaling,) * len(elements),
        E_shift=(shift,) * len(elements),
    )
    energies = configuration[ATOMIC_ENERGIES] or {}
    return ModelSettings(
        family=AENET_FAMILY,
        backbone=backbone,
        atomic_energies=tuple(float(energies.get(symbols[z], 0.0)) for z in elements),
    )


def _number(symbol: str) -> int:
    if atomic_numbers.get(symbol, 0) == 0:
        raise ValueError(f"species: expected symbols of elements, found {symbol!r}")
    return atomic_numbers[symbol]


def _statistics(normalization: Mapping[str, Any]) -> FeatureStatistics | None:
    """Return one row for all elements, or None where features are left as they are."""
    mean, std = normalization["feature_mean"], normalization["feature_std"]
    if not normalization["normalize_features"] or mean is None or std is None:
        return None
    rows = {
        "mean": mean,
        "std": np.maximum(std, _SMALLEST_DEVIATION),
        "minimum": normalization.get("feature_min"),
        "maximum": normalization.get("feature_max"),
    }
    return FeatureStatistics(
        **{name: None if row is None else (tuple(row),) for name, row in rows.items()}
    )
