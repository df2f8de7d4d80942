"""What the log of a run tells beyond its results: versions, data, compilations, warnings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    "AtomicNumberTable: ": "elements (atomic numbers)",
    "Atomic energies: ": "energies of isolated atoms / eV",
    "Optimizer: ": "optimiser",
}
"""Beginnings of lines that state a fact, and what they are called in a report."""
SET_OF_LABELS = re.compile(
    r"(?:Total |Random Split )?(?P<title>[A-Z][a-z]+ set) \[(?P<counts>.*)\]"
)


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
