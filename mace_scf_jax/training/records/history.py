"""The history of a training run as a table: one row per epoch that was evaluated.

Columns, in this order: ``stage``, ``epoch``, ``time`` (so far), ``train_time`` and
``evaluation_time`` (of the epoch), learning rates, ``train_loss``, its weighted
terms ``train_loss_<term>``, ``valid_loss``, errors ``valid_<metric>``, and the same for every
monitored test set. Losses of training are means over the steps of the epoch. For models that are
solved self-consistently, ``train_scf_…`` and ``valid_scf_…`` count how the solutions ended.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.predict.metrics import metric_unit
from mace_scf_jax.training.records.results_file import (
    RunResults,
    metrics_of,
    read_results,
    set_name,
)

Row = Mapping[str, Any]
_TIMES = ("time", "train_time", "evaluation_time")


@dataclasses.dataclass(frozen=True)
class TrainingHistory:
    """One row per evaluated epoch; ``pandas.DataFrame(history.rows)`` is the table."""

    rows: tuple[Row, ...]
    """A value for each column that the epoch has."""

    @classmethod
    def of(cls, results: RunResults) -> TrainingHistory:
        """The history that the results of a run tell.

        Args:
            results: steps and evaluations.
        """
        by_epoch: dict[int, list[Mapping[str, Any]]] = {}
        for record in results.evaluations:
            by_epoch.setdefault(record["epoch"], []).append(record)
        rows: list[Row] = []
        seconds = 0.0
        for epoch, steps in _grouped(results.steps).items():
            evaluations = by_epoch.get(epoch, [])
            seconds += _seconds(steps) + _seconds(evaluations)
            if evaluations:
                rows.append(_row(epoch, seconds, steps, evaluations))
        return cls(tuple(rows))

    @classmethod
    def read(cls, path: str | Path) -> TrainingHistory:
        """The history of a run from its results file.

        Args:
            path: ``<results_dir>/<name>_run-<seed>_train.txt``.

        Raises:
            ResultsError: the file is missing or holds no step.
        """
        return cls.of(read_results(Path(path)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each column that has one."""
        units = {name: _unit(name) for name in self.columns}
        return {name: unit for name, unit in units.items() if unit}

    def column(self, name: str) -> np.ndarray:
        """The numbers of a column, NaN where an epoch has none.

        Args:
            name: of the column.

        Raises:
            KeyError: there is no such column.
        """
        if name not in self.columns:
            raise KeyError(name)
        return np.array([row.get(name, np.nan) for row in self.rows])

    def write_csv(self, path: Path) -> None:
        """Write the table with one line per row; missing values stay empty."""
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(self.rows)

    def write_json(self, path: Path) -> None:
        """Write ``{"units": {column: unit}, "rows": [{column: value}]}``."""
        content = {"units": self.units, "rows": self.rows}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """Time that steps or evaluations took."""
    return sum(record["time"] for record in records)


def _grouped(steps: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The steps of each epoch."""
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for step in steps:
        groups.setdefault(step["epoch"], []).append(step)
    return groups


def _row(
    epoch: int,
    seconds: float,
    steps: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
) -> Row:
    row = {
        "stage": steps[-1]["stage"],
        "epoch": epoch,
        "time": seconds,
        "train_time": _seconds(steps),
        "evaluation_time": _seconds(evaluations),
    }
    for record in evaluations:
        row |= record.get("learning_rates", {})
    row["train_loss"] = float(np.mean([step["loss"] for step in steps]))
    for term in steps[-1]["loss_terms"]:
        values = [step["loss_terms"][term] for step in steps]
        row[f"train_loss_{term}"] = float(np.mean(values))
    row |= _scf_columns("train", steps)
    for record in evaluations:
        name = set_name(record)
        row[f"{name}_loss"] = record["loss"]
        row |= {f"{name}_{metric}": value for metric, value in metrics_of(record).items()}
        row |= _scf_columns(name, [record])
    return row


def _scf_columns(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many self-consistent solutions of an epoch ended in which way."""
    counts: dict[str, int] = {}
    for record in records:
        for kind, number in record.get("scf", {}).items():
            column = f"{name}_scf_{kind}"
            counts[column] = counts.get(column, 0) + number
    return counts


def _unit(column: str) -> str:
    """Unit of a column: of its metric, after the name of a set that may hold underscores."""
    if column in _TIMES:
        return "s"
    parts = column.split("_")
    units = (metric_unit("_".join(parts[start:])) for start in range(1, len(parts)))
    return next((unit for unit in units if unit), "")
