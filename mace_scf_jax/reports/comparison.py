"""Labels beside predictions, entry by entry: what parity plots show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.predict.metrics import QUANTITIES


@dataclasses.dataclass(frozen=True)
class ComparedQuantity:
    """One property whose labels are compared with predictions."""

    title: str
    label: str
    """Name of the label."""
    prediction: str
    """Name of the model output."""
    unit: str
    error_unit: str
    """A thousandth of the unit."""
    components: tuple[int, int] | None = None
    """First component and the one after the last; None for all."""


_OUTPUTS = {quantity.label: quantity.prediction for quantity in QUANTITIES}


def _quantity(title: str, label: str, unit: str, error_unit: str, **more: Any) -> ComparedQuantity:
    return ComparedQuantity(title, label, _OUTPUTS[label], unit, error_unit, **more)


_MULTIPOLES = "atomic_multipoles"
COMPARED = (
    _quantity("Energy less E0s", "energy", "eV/atom", "meV/atom"),
    _quantity("Forces", "forces", "eV/Å", "meV/Å"),
    _quantity("Stress", "stress", "eV/Å³", "meV/Å³"),
    _quantity("Atomic charges", _MULTIPOLES, "e", "me", components=(0, 1)),
    _quantity("Atomic dipoles", _MULTIPOLES, "e Å", "me Å", components=(1, 4)),
    _quantity("Atomic quadrupoles", _MULTIPOLES, "e Å²", "me Å²", components=(4, 9)),
    _quantity("Total dipole", "dipole", "e Å", "me Å"),
    _quantity("Total charge", "total_charge", "e", "me"),
    _quantity("Fermi level", "fermi_level", "eV", "meV"),
    _quantity("Polarizability", "polarizability", "e Å²/V", "me Å²/V"),
    _quantity("Electrostatic potential", "electrostatic_potentials", "V", "mV"),
)
"""All properties that are compared, if model and data have them."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Labelled entries of one property, one element per component."""

    quantity: ComparedQuantity
    reference: np.ndarray
    prediction: np.ndarray
    config_type: np.ndarray
    """Name of the config type of each entry."""

    @property
    def error(self) -> np.ndarray:
        """Prediction less reference."""
        return self.prediction - self.reference

    def of(self, config_type: str) -> Comparison:
        """The entries of one config type.

        Args:
            config_type: its name.
        """
        own = self.config_type == config_type
        return Comparison(
            self.quantity, self.reference[own], self.prediction[own], self.config_type[own]
        )

    @property
    def rmse(self) -> float:
        """Root mean square error."""
        return float(np.sqrt(np.mean(self.error**2)))

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.mean(np.abs(self.error)))


def compare(
    configurations: Iterable[Configuration],
    predictions: Sequence[Mapping[str, Any]],
    *,
    atomic_energies: Mapping[int, float] | Sequence[Mapping[int, float]],
) -> list[Comparison]:
    """The labels of configurations beside the predictions of a model.

    Energies are per atom and without those of isolated atoms, which would hide all differences.

    Args:
        configurations: with their labels; entries of weight zero are left out.
        predictions: model outputs for each of them by name.
        atomic_energies: energies of isolated atoms by atomic number, in eV, or those of every head.

    Returns:
        One comparison for each of `COMPARED` that labels and predictions have.
    """
    of_heads = [atomic_energies] if isinstance(atomic_energies, Mapping) else atomic_energies
    collected: dict[ComparedQuantity, list[tuple[np.ndarray, np.ndarray, str]]] = {}
    for configuration, prediction in zip(configurations, predictions, strict=True):
        for quantity in COMPARED:
            if quantity.label not in configuration.present or quantity.prediction not in prediction:
                continue
            reference, predicted = _entries(quantity, configuration, prediction)
            if quantity.label == "energy":
                own = of_heads[configuration.head or 0]
                isolated = sum(own[int(z)] for z in configuration.atomic_numbers)
                reference = (reference - isolated) / configuration.num_atoms
                predicted = (predicted - isolated) / configuration.num_atoms
            collected.setdefault(quantity, []).append(
                (reference, predicted, configuration.config_type)
            )
    comparisons = [_joined(quantity, parts) for quantity, parts in collected.items()]
    found = [comparison for comparison in comparisons if comparison.reference.size]
    return sorted(found, key=lambda comparison: COMPARED.index(comparison.quantity))


def _entries(
    quantity: ComparedQuantity, configuration: Configuration, prediction: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Labelled entries of one configuration, and the predicted ones."""
    reference = np.asarray(configuration.values[quantity.label], dtype=np.float64)
    predicted = np.asarray(prediction[quantity.prediction], dtype=np.float64)
    weight = np.broadcast_to(configuration.weights[quantity.label], reference.shape)
    if quantity.components is not None:
        count = min(reference.shape[-1], predicted.shape[-1], quantity.components[1])
        part = slice(quantity.components[0], count)
        reference, predicted, weight = reference[:, part], predicted[:, part], weight[:, part]
    used = weight > 0.0
    return reference[used], predicted[used]


def _joined(
    quantity: ComparedQuantity, parts: Sequence[tuple[np.ndarray, np.ndarray, str]]
) -> Comparison:
    references, predictions, types = zip(*parts, strict=True)
    names = [np.full(len(part), name) for part, name in zip(references, types, strict=True)]
    return Comparison(
        quantity, np.concatenate(references), np.concatenate(predictions), np.concatenate(names)
    )
