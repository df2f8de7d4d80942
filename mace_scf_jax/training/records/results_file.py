"""Reading the JSON lines of a run, which `reporting.ResultLines` writes.

A run that was stopped and resumed has done some steps twice, and a run that was started anew has
done everything twice: the later record of a step or evaluation replaces the earlier one, and
everything that came after the earlier one goes with it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

STEP, VALIDATED, MONITORED, FINAL = "opt", "eval", "eval_test", "final"
"""What a line tells: its ``mode``."""

NOT_METRICS = frozenset({"mode", "test_name", "stage", "epoch", "loss", "time"})


class ResultsError(ValueError):
    """The results of a run are missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class RunResults:
    """What a run has written about its steps and evaluations, each of them once, in their order."""

    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    """Of the validation set and of test sets during training."""
    final: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Errors of the best parameters by stage, set and name of the metric, if the run is over."""
    final_epochs: Mapping[str, int]
    """Epoch of the best parameters of each stage, if the run is over."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that have begun, in their order."""
        return tuple(dict.fromkeys(record["stage"] for record in self.steps))


def read_results(path: Path) -> RunResults:
    """Read the results file of a run.

    Lines that a sudden end of the run has cut off are left out, with a warning.

    Args:
        path: written during training.

    Raises:
        ResultsError: there is no such file, or it holds no record of a step.
    """
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; expected the results of a training run")
    steps: dict[tuple[int, int], Mapping[str, Any]] = {}
    evaluations: dict[tuple[int, str], Mapping[str, Any]] = {}
    final: dict[str, dict[str, dict[str, float]]] = {}
    final_epochs: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        record = _parsed(line, f"{path}, line {number}")
        mode = record.get("mode")
        if mode == STEP:
            key = record["epoch"], record["opt_step"]
            if steps and key <= next(reversed(steps)):
                steps = {earlier: kept for earlier, kept in steps.items() if earlier < key}
                evaluations = {
                    earlier: kept for earlier, kept in evaluations.items() if earlier[0] < key[0]
                }
                final, final_epochs = {}, {}
            steps[key] = record
        elif mode in (VALIDATED, MONITORED):
            evaluations[record["epoch"], set_name(record)] = record
        elif mode == FINAL:
            errors = {name: record[name] for name in record if name not in NOT_METRICS | {"set"}}
            final.setdefault(record["stage"], {})[record["set"]] = errors
            final_epochs[record["stage"]] = record["epoch"]
    if not steps:
        raise ResultsError(f"{path}: found no record of a training step")
    return RunResults(tuple(steps.values()), tuple(evaluations.values()), final, final_epochs)


def set_name(record: Mapping[str, Any]) -> str:
    """Which set an evaluation is of.

    Args:
        record: of an evaluation.
    """
    return record.get("test_name", "valid")


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation by name.

    Args:
        record: of an evaluation.
    """
    return {
        name: value
        for name, value in record.items()
        if name not in NOT_METRICS and isinstance(value, float)
    }


def _parsed(line: str, where: str) -> Mapping[str, Any]:
    """The record of a line; an empty one if the line is incomplete."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        logger.warning("%s: not a complete record, left out", where)
        return {}
