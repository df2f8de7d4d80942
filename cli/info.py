"""``mace-scf-jax info``: what a model file holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mace_scf_jax.late import import_all
from mace_scf_jax.models.model_file import load_model_file

if TYPE_CHECKING:
    from mace_scf_jax.models.description import describe, summarise

WHEN_INTERRUPTED = "interrupted"
NAME_WIDTH = 26

MOST_NUMBERS = 12
"""Of a list within a list that are all shown; `--json` shows everything."""


def run(words: Sequence[str]) -> int:
    """Describe the file named after ``mace-scf-jax info``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax info",
        description="Show what a model file holds, after verifying its checksum.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--all", action="store_true", help="everything, settings of the training too")
    much.add_argument("--json", action="store_true", help="everything as one JSON object")
    given = parser.parse_args(words)
    import_all(__name__, __file__)
    content = load_model_file(given.model)
    if given.json:
        print(json.dumps(describe(content), indent=2, ensure_ascii=False))
    elif given.all:
        print("\n".join(_lines(describe(content))))
    else:
        print("\n".join(_lines(summarise(content))))
        print("Everything: --all, or --json for programs")
    return 0


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """One line for each entry, nested ones indented."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{name:<{NAME_WIDTH - len(indent)}} {_text(value)}"


def _entry(value: Any) -> str:
    """An entry of a list, of which long ones are told by their range."""
    if not isinstance(value, list | tuple):
        return _text(value)
    if len(value) > MOST_NUMBERS and all(isinstance(number, float) for number in value):
        return f"{len(value)} numbers from {min(value):.4g} to {max(value):.4g}"
    return f"[{_text(value)}]"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_entry, value))
    return json.dumps(value, ensure_ascii=False)
