"""What a training run has left behind: its files, results and log."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mace_scf_jax.data.statistics import LABELS_FOUND
from mace_scf_jax.predict.committee import COMMITTEE_FILE, read_committee_file
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.training.committee import member_options
from mace_scf_jax.training.config.options import options_from
from mace_scf_jax.training.records.history import TrainingHistory
from mace_scf_jax.training.records.results_file import RunResults, read_results
from mace_scf_jax.training.records.run_files import RunFiles

LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (?P<level>[A-Z]+): (?P<text>.*)"
)
COMPILED = re.compile(
    r"Compiled (?P<step>.+) for bucket (?P<number>\d+) \((?P<bucket>.+)\) in (?P<seconds>[\d.]+) s"
)
START = "mace-scf-jax version: "
CONFIGURATION = "Configuration: "
FACTS = {
    "mace-scf-jax version: ": "mace-scf-jax",
    "JAX version: ": "JAX",
    "Device: ": "device",
    "Number of parameters: ": "parameters",
    "Average number of neighbors: ": "average number of neighbours",
    "Total number of configurations: ": "configurations",
    "AtomicNumberTable: ": "elements (atomic numbers)",  # this and the next of earlier versions
    "Atomic energies: ": "energies of isolated atoms / eV",
    "Energies of isolated atoms / eV: ": "energies of isolated atoms / eV",
    "Optimizer: ": "optimiser",
}
"""Beginnings of lines that state a fact, and what they are called in a report."""
SET_OF_LABELS = re.compile(
    r"(?:Total |Random Split )?(?P<title>[A-Z][a-z]+ set) \[(?P<counts>.*)\]"
)
"""In logs of earlier versions; later ones have a table."""


@dataclasses.dataclass(frozen=True)
class CompiledFunction:
    """One compilation."""

    step: str
    bucket: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunLog:
    """The log of a run; of several processes that worked on it, facts are from the last."""

    started: str
    """Time of the first line."""
    ended: str
    """Time of the last line."""
    processes: int
    """How often the run was started or resumed."""
    facts: Mapping[str, str]
    options: Mapping[str, Any]
    labels: Mapping[str, Mapping[str, str]]
    """Number of labelled configurations, by set and property."""
    compiled: Sequence[CompiledFunction]
    """By all processes."""
    warnings: Sequence[str]
    """Each once, in order of first appearance, and errors too."""


def read_log(path: Path) -> RunLog:
    """Read a log.

    Args:
        path: of the main log file.
    """
    text = path.read_text(encoding="utf-8")
    lines = [match for line in text.splitlines() if (match := LINE.fullmatch(line))]
    messages = [match["text"] for match in lines]
    starts = [index for index, message in enumerate(messages) if message.startswith(START)]
    latest = messages[starts[-1] :] if starts else messages
    facts, options, labels = {}, {}, {}
    for message in latest:
        for beginning, name in FACTS.items():
            if message.startswith(beginning):
                facts[name] = message.removeprefix(beginning)
        if message.startswith(CONFIGURATION):
            options = json.loads(message.removeprefix(CONFIGURATION))
        if match := SET_OF_LABELS.fullmatch(message):
            labels[match["title"]] = dict(
                part.split(": ", 1) for part in match["counts"].split(", ") if ": " in part
            )
    labels |= _labels_in_table(text)
    return RunLog(
        started=lines[0]["time"] if lines else "",
        ended=lines[-1]["time"] if lines else "",
        processes=len(starts),
        facts=facts,
        options=options,
        labels=labels,
        compiled=[
            CompiledFunction(found["step"], found["bucket"], float(found["seconds"]))
            for message in messages
            if (found := COMPILED.fullmatch(message))
        ],
        warnings=list(
            dict.fromkeys(
                f"{match['level']}: {match['text']}"
                for match in lines
                if match["level"] in ("WARNING", "ERROR", "CRITICAL")
            )
        ),
    )


def _labels_in_table(text: str) -> dict[str, dict[str, str]]:
    """The last table of labels in a log: numbers by set and property."""
    _, found, rest = text.rpartition(f"{LABELS_FOUND}\n")
    following = rest.splitlines() if found else []
    lines = itertools.takewhile(lambda line: line.startswith("|"), following)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: dict(zip(rows[0][1:], counts, strict=True)) for name, *counts in rows[1:]}


CONFIGURATIONS = (".yaml", ".yml")
RESULTS = "*_run-*_train.txt"
TAG = re.compile(r"(?P<name>.+)_run-(?P<seed>\d+)_train\.txt")


class RunError(ValueError):
    """No training run is found, or something of it is missing."""


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A training run, going on or over."""

    files: RunFiles
    name: str
    seed: int
    results: RunResults
    history: TrainingHistory
    log: RunLog | None
    """None if there is no log file."""

    @property
    def tag(self) -> str:
        """Name of the run in file names."""
        return f"{self.name}_run-{self.seed}"

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that the log tells; empty without log."""
        return {} if self.log is None else self.log.options

    @property
    def family(self) -> str:
        """Model family, if the log tells."""
        return self.options.get("model", "model")

    @property
    def planned_epochs(self) -> int | None:
        """Number of epochs of all stages, if the log tells."""
        stages = self.options.get("train_schedule", {})
        return max((stage["end"] + 1 for stage in stages.values()), default=None)

    @property
    def stage_epochs(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first and last epoch of each stage so far."""
        epochs: dict[str, list[int]] = {}
        for step in self.results.steps:
            epochs.setdefault(step["stage"], []).append(step["epoch"])
        return tuple((name, min(found), max(found)) for name, found in epochs.items())

    def best_epochs(self) -> dict[str, int]:
        """The epoch with the lowest validation loss of each stage."""
        best: dict[str, Mapping[str, Any]] = {}
        for row in self.history.rows:
            stage = row["stage"]
            if "valid_loss" in row and (
                stage not in best or row["valid_loss"] < best[stage]["valid_loss"]
            ):
                best[stage] = row
        return {stage: row["epoch"] for stage, row in best.items()}

    def model(self, stage: str | None = None) -> Model:
        """The model of a stage.

        Args:
            stage: its name; None for the last one that has a model.

        Raises:
            RunError: there is no model file, or it was written by another run.
        """
        wanted = [stage] if stage else [name for name in reversed(self.results.stages)]
        paths = [self.files.model(name) for name in wanted]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise RunError(f"{paths[0]}: no such model file; it is written when training is over")
        model = load_model(path)
        seed = model.record.get("training_options", {}).get("seed")
        if seed != self.seed:
            raise RunError(f"{path}: was written by the run with seed {seed}, not {self.seed}")
        return model


def find_runs(path: str | Path) -> list[TrainingRun]:
    """The training runs that a path means: one, or those of the members of a committee.

    Members whose training has not begun are left out.

    Args:
        path: as for `find_run`, or the folder of a committee, its ``committee.json`` or its
            configuration.

    Raises:
        RunError: there is no run, or there are several that are not of one committee.
        ResultsError: the results hold no step.
        ConfigurationError: the configuration cannot be used.
        CommitteeFileError: ``committee.json`` is damaged.
    """
    path = Path(path)
    path = path.parent if path.name == COMMITTEE_FILE else path
    options = options_from(path) if path.suffix in CONFIGURATIONS else None
    folder = path if options is None else options.work_dir
    if not (folder / COMMITTEE_FILE).is_file():
        return [find_run(path)]
    numbers = range(1, read_committee_file(folder).size + 1)
    if options is None:
        results = [sorted(folder.glob(f"member-{number}/results/{RESULTS}")) for number in numbers]
        members = [_files_around(found) for found in itertools.chain.from_iterable(results)]
    else:
        members = [RunFiles.of(member_options(options, number)) for number in numbers]
    begun = [_run_of(files) for files in members if files.results.is_file()]
    if not begun:
        raise RunError(
            f"{folder}: found a committee, but no results of a member; if it has a results_dir "
            "of its own, name its configuration file instead"
        )
    return begun


def find_run(path: str | Path) -> TrainingRun:
    """The training run that a path means.

    Args:
        path: the folder of a run (its ``work_dir``), its configuration (.yaml), or its results
            file ``results/<name>_run-<seed>_train.txt``.

    Raises:
        RunError: there is no run, or there are several.
        ResultsError: the results hold no step.
        ConfigurationError: the configuration cannot be used.
    """
    path = Path(path)
    if path.suffix in CONFIGURATIONS:
        files = RunFiles.of(options_from(path))
    else:
        files = _files_around(path if path.is_file() else _results_in(path))
    return _run_of(files)


def _run_of(files: RunFiles) -> TrainingRun:
    """The run that has left these files."""
    matched = TAG.fullmatch(files.results.name)
    if matched is None:
        raise RunError(f"{files.results}: expected a file named <name>_run-<seed>_train.txt")
    results = read_results(files.results)
    return TrainingRun(
        files=files,
        name=matched["name"],
        seed=int(matched["seed"]),
        results=results,
        history=TrainingHistory.of(results),
        log=read_log(files.log) if files.log.is_file() else None,
    )


def _results_in(folder: Path) -> Path:
    """The only results file of a folder."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder, results file or configuration")
    found = sorted([*folder.glob(f"results/{RESULTS}"), *folder.glob(RESULTS)])
    if not found:
        raise RunError(
            f"{folder}: found no results/<name>_run-<seed>_train.txt; if the run has a results_dir "
            "of its own, name its configuration file instead"
        )
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise RunError(f"{folder}: found {len(found)} runs, name one of them: {names}")
    return found[0]


def _files_around(results: Path) -> RunFiles:
    """The files of a run whose folders are where they are by default."""
    work = results.parent.parent if results.parent.name == "results" else results.parent
    tag = results.name.removesuffix("_train.txt")
    return RunFiles(
        log=work / "logs" / f"{tag}.log",
        debug_log=work / "logs" / f"{tag}_debug.log",
        results=results,
        history=results.with_name(f"{tag}_history.csv"),
        checkpoints=work / "checkpoints",
        models=work,
        work=work,
        name=tag.rpartition("_run-")[0],
    )


def options_as_json(options: Mapping[str, Any]) -> str:
    """Options as text that can be given again.

    Args:
        options: by name.
    """
    return json.dumps(options, indent=1)
