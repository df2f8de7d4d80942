"""The results file of a run: one JSON object per step and evaluation, written and read.

A run that was stopped and resumed has done some steps twice, and a run that was started anew has
done everything twice: for the reader, the later record of a step or evaluation replaces the earlier
one, and everything that came after the earlier one goes with it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mace_scf_jax.training.loop.observer import (
    EvaluationRecord,
    FinalErrors,
    Observer,
    StepRecord,
)
from mace_scf_jax.training.loop.scf_counts import SCFCounts
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.loop.validation import VALIDATION
from mace_scf_jax.training.optimise.learning_rates import named_rates

logger = logging.getLogger(__name__)

STEP, VALIDATED, MONITORED, FINAL = "opt", "eval", "eval_test", "final"
"""What a line tells: its ``mode``."""

NOT_METRICS = frozenset({"mode", "test_name", "stage", "epoch", "loss", "time"})


class ResultsError(ValueError):
    """The results of a run are missing or cannot be read."""


class ResultLines(Observer):
    """One JSON object per step and evaluation, appended to a file; `read_results` reads it.

    ``mode`` is ``opt`` for a step, ``eval`` for the validation set, ``eval_test`` for a test set,
    and ``final`` for a set and the best parameters of a stage. After a run was resumed, the steps
    since the last saved state are there twice.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("ab", buffering=0)
        if _is_cut_off(path):
            self._file.write(b"\n")
        self._rates: dict[str, float] = {}

    def __enter__(self) -> ResultLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def epoch_started(self, stage: Stage, progress: Progress) -> None:
        """Note the learning rates."""
        self._rates = named_rates(stage, progress.learning_rates)

    def step_done(self, record: StepRecord) -> None:
        """Write loss, its terms and the norm of the gradient, and what a closer look has shown."""
        watched = {} if record.watched is None else record.watched.numbers
        self._write(
            {
                "mode": STEP,
                "stage": record.stage,
                "epoch": record.epoch,
                "opt_step": record.opt_step,
                "loss": record.loss,
                "loss_terms": dict(record.terms),
                "grad_norm_before_clip": record.grad_norm_before_clip,
                "grad_clip_applied": record.grad_clip_applied,
                **_scf_entry(record.scf),
                **watched,
                "time": record.time,
            }
        )

    def evaluated(self, record: EvaluationRecord) -> None:
        """Write loss and metrics."""
        is_validation = record.set_name == VALIDATION
        which = {} if is_validation else {"test_name": record.set_name}
        self._write(
            {
                "mode": VALIDATED if is_validation else MONITORED,
                **which,
                "stage": record.stage,
                "epoch": record.epoch,
                "loss": record.loss,
                **record.metrics,
                **_scf_entry(record.scf),
                "learning_rates": self._rates,
                "time": record.time,
            }
        )

    def finally_evaluated(self, errors: FinalErrors) -> None:
        """Write the metrics of every set."""
        for name, metrics in errors.metrics.items():
            identity = {"mode": FINAL, "stage": errors.stage, "epoch": errors.epoch, "set": name}
            self._write(identity | dict(metrics))

    def _write(self, values: Mapping[str, Any]) -> None:
        rest = (json.dumps(values) + "\n").encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            what = "cannot write results; start the run again to go on from its last saved state"
            raise OSError(error.errno, f"{error.strerror}: {what}", str(self._path)) from None


def _is_cut_off(path: Path) -> bool:
    """Whether the last line of a file lacks its end, as after a sudden end of a run."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read() not in (b"", b"\n")


def _scf_entry(counts: SCFCounts) -> dict[str, Any]:
    """The counts, if anything was solved for."""
    return {"scf": dataclasses.asdict(counts)} if counts.structures else {}


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
    return record.get("test_name", VALIDATION)


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
