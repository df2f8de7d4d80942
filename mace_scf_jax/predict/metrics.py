"""Errors of a model on a set of configurations.

Errors are collected batch by batch on the host, in float64, over real entries only, and reduced at
the end. With reference r, prediction p and error e = r - p, every quantity s gets

    mae_s = mean |e|,  rmse_s = sqrt(mean e²),  q95_s = 95th percentile of |e|

and, where marked, rel_mae_s = 100 mae_s / mean |r| and rel_rmse_s = 100 rmse_s / sqrt(mean r²) in
percent. Units are those of the labels (eV, Å, e); the tables print thousandths.

An entry whose label is missing (weight zero) is left out, and a quantity without any entry has no
metric. The PyTorch reference counts missing labels as zeros, which makes errors of partly labelled
sets depend on how many labels are missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.models.outputs import OUTPUTS, Output

SMALLEST_NORM = 1e-9
"""Added to the norm of the reference in relative errors."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One output that errors are reported for."""

    symbol: str
    """Last part of the metric names."""
    prediction: str
    """Name of the output."""
    relative: bool = False
    per_atom_errors: bool = False
    """Also errors divided by the number of atoms."""
    reference: str | None = None
    """Name of the label; None for that of the output."""

    @property
    def label(self) -> str:
        """Name of the label."""
        return self.reference or self.prediction

    @property
    def output(self) -> Output:
        """What the output is."""
        return OUTPUTS[self.prediction]


QUANTITIES = (
    Quantity("e", "energy", per_atom_errors=True),
    Quantity("f", "forces", relative=True),
    Quantity("stress", "stress", per_atom_errors=True),
    Quantity("virials", "virials", per_atom_errors=True),
    Quantity("mu", "dipole", relative=True, per_atom_errors=True),
    Quantity("dma", "multipoles", relative=True, reference="atomic_multipoles"),
    Quantity("total_charge", "total_charge"),
    Quantity("fermi_level", "fermi_level"),
    Quantity("polarizability", "polarizability", per_atom_errors=True),
    Quantity("esp", "electrostatic_potentials", relative=True),
)
"""Everything that errors are reported for, if the model predicts it and the data hold it."""

METRIC_INPUTS = frozenset(quantity.prediction for quantity in QUANTITIES)
"""The model outputs that metrics read."""

_PER_ATOM = "_per_atom"
_RELATIVE = "rel_"
_STATISTICS = ("mae_spread_", "rmse_spread_", "offset_", "rmse_", "mae_", "q95_")
_PARTS_OF_MULTIPOLES = {"charges": "e", "local_dipoles": "e Å"}


def metric_unit(name: str) -> str:
    """The unit of a metric; empty for a loss and for names that are no metric.

    Args:
        name: such as ``rmse_f``, ``rel_mae_mu`` or ``offset_e_per_atom``.
    """
    if name.startswith(_RELATIVE):
        return "%"
    statistic = next((start for start in _STATISTICS if name.startswith(start)), None)
    if statistic is None:
        return ""
    symbol = name.removeprefix(statistic).removesuffix(_PER_ATOM)
    units = {quantity.symbol: quantity.output.unit for quantity in QUANTITIES}
    unit = (units | _PARTS_OF_MULTIPOLES).get(symbol, "")
    return f"{unit}/atom" if unit and name.endswith(_PER_ATOM) else unit


@dataclasses.dataclass(frozen=True)
class Errors:
    """Labelled entries of one quantity, one element per component."""

    reference: np.ndarray
    error: np.ndarray
    """Reference minus prediction."""
    atoms: np.ndarray
    """Number of atoms of the configuration."""
    component: np.ndarray
    """Index of the component within its tensor."""

    @classmethod
    def collect(
        cls, parts: Sequence[Errors], gathered: Callable[[np.ndarray], np.ndarray]
    ) -> Errors:
        """The entries of several batches, and of all processes."""
        names = [field.name for field in dataclasses.fields(cls)]
        rows = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return cls(*map(gathered, rows))


class ErrorAccumulator:
    """Errors of one set of configurations, collected over batches."""

    def __init__(self):
        self._batches: dict[str, list[Errors]] = {}

    def update(self, prediction: Mapping[str, Any], graph: Graph) -> None:
        """Add one batch.

        Args:
            prediction: model outputs by name, those of ``METRIC_INPUTS`` are read.
            graph: the batch with labels and weights.

        Raises:
            ValueError: a prediction and its label differ in shape.
        """
        for quantity in QUANTITIES:
            if quantity.prediction in prediction and quantity.label in graph.labels:
                errors = _errors(quantity, prediction[quantity.prediction], graph)
                self._batches.setdefault(quantity.symbol, []).append(errors)

    def metrics(
        self, *, gathered: Callable[[np.ndarray], np.ndarray] = lambda rows: rows
    ) -> dict[str, float]:
        """The metrics of everything added so far, by name.

        Args:
            gathered: the rows of all processes from those of this one.
        """
        metrics: dict[str, float] = {}
        for quantity in QUANTITIES:
            if quantity.symbol in self._batches:
                errors = Errors.collect(self._batches[quantity.symbol], gathered)
                if errors.error.size:
                    metrics.update(_metrics_of(quantity, errors))
        return metrics


def _errors(quantity: Quantity, predicted: Any, graph: Graph) -> Errors:
    """The labelled entries of one batch."""
    reference = np.asarray(graph.labels[quantity.label], dtype=np.float64)
    predicted = np.asarray(predicted, dtype=np.float64)
    if reference.shape != predicted.shape:
        raise ValueError(
            f"metrics of '{quantity.label}': the labels have shape {reference.shape}, the model "
            f"predicts {predicted.shape}"
        )
    reference = reference.reshape(len(reference), -1)
    predicted = predicted.reshape(len(predicted), -1)
    owner = np.asarray(graph.atom_graph)
    atom_mask = np.asarray(graph.atom_mask)
    atoms = np.bincount(owner[atom_mask], minlength=graph.num_graphs)
    labelled = _labelled(quantity, graph) & np.asarray(graph.graph_mask)[:, None]
    if quantity.output.per_atom:
        atoms, labelled = atoms[owner], labelled[owner] & atom_mask[:, None]
    present = np.broadcast_to(labelled, reference.shape)
    entry, component = np.nonzero(present)
    return Errors(reference[present], (reference - predicted)[present], atoms[entry], component)


def _labelled(quantity: Quantity, graph: Graph) -> np.ndarray:
    """Which graphs have the label: [graphs, 1], or [graphs, 3] for the dipole's components.

    The total charge is an input, so that every graph has it.
    """
    if quantity.label == "total_charge":
        return np.ones((graph.num_graphs, 1), dtype=bool)
    weight = np.asarray(graph.weights[quantity.label])
    return weight.reshape(len(weight), -1) > 0.0


def _metrics_of(quantity: Quantity, errors: Errors) -> dict[str, float]:
    """All metrics of one quantity."""
    name, error = quantity.symbol, errors.error
    metrics = {
        f"mae_{name}": _mae(error),
        f"rmse_{name}": _rmse(error),
        f"q95_{name}": float(np.percentile(np.abs(error), 95)),
    }
    if quantity.relative:
        for kind, norm in (("mae", _mae), ("rmse", _rmse)):
            metrics[f"rel_{kind}_{name}"] = (
                100.0 * metrics[f"{kind}_{name}"] / (norm(errors.reference) + SMALLEST_NORM)
            )
    if quantity.per_atom_errors:
        per_atom = error / errors.atoms
        metrics[f"mae_{name}_per_atom"] = _mae(per_atom)
        metrics[f"rmse_{name}_per_atom"] = _rmse(per_atom)
    if name == "e":
        offset = float(np.mean(per_atom))
        metrics["offset_e_per_atom"] = offset
        metrics["mae_spread_e_per_atom"] = _mae(per_atom - offset)
        metrics["rmse_spread_e_per_atom"] = _rmse(per_atom - offset)
    if name == "dma":
        metrics["rmse_charges"] = _rmse(error[errors.component == 0])
        dipoles = error[(errors.component >= 1) & (errors.component <= 3)]
        if dipoles.size:
            metrics["rmse_local_dipoles"] = _rmse(dipoles)
    return metrics


def _mae(error: np.ndarray) -> float:
    return float(np.mean(np.abs(error)))


def _rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))
