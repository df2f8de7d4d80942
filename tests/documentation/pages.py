"""Fenced blocks of the pages of the documentation, and how the tests run them.

A page is a session: its blocks run in order, in one folder and with one set of Python names. A
comment above a block says when that is otherwise:

- ``<!-- slow -->``: runs with the slow tests only,
- ``<!-- not run: REASON -->``: what the test cannot do, such as an installation,
- ``<!-- NAME -->`` with a name of `RUN_ELSEWHERE`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mace_scf_jax_cli.main import main

ROOT = Path(__file__).parents[2]
RUN_ELSEWHERE = {
    "example": "by hand; the configuration is tested in training/test_examples.py",
    "tests": "by .ci/run",
    "slow tests": "by hand",
    "site": "by .ci/run",
}
"""Commands with a name, which scripts look for, and who runs them."""
RUNNING = ("python", "bash")
SHOWN = ("", "yaml", "toml", "xml")
"""Languages of blocks that are not programs."""
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
FEWER = {"--steps": 1000, "--committee": 2, "--atoms": 4, "--workers": 8}
"""Numbers of commands that tests divide, so that they end soon."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    mark: str
    language: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_slow(self) -> bool:
        """Whether only the slow tests run it."""
        return self.mark == "slow"

    @property
    def runs(self) -> bool:
        """Whether it is a program that tests run."""
        excused = self.mark.startswith("not run: ") or self.mark in RUN_ELSEWHERE
        return self.language in RUNNING and not excused

    def run(self, names: dict[str, Any]) -> None:
        """Run it in the current folder; what Python defines stays in the names."""
        if self.language == "python":
            source = "\n" * self.line + self.text
            exec(compile(source, str(self.page), "exec"), names)
            return
        for line in self.text.replace("\\\n", " ").splitlines():
            run_command(line, self.place)


def pages() -> list[Path]:
    """All pages: of the documentation, and those that stand beside code and data."""
    beside = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("examples/*/*.md")]
    return sorted([*beside, *ROOT.glob("docs/**/*.md")])


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield Block(page, line, found["mark"] or "", found["language"], found["text"])


def run_command(line: str, place: str) -> None:
    """Do what a line says to a shell: a command of this package, or a change of the folder."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    program, *words = words
    if program == "cd":
        os.chdir(words[0])
        return
    assert program == "mace-scf-jax", f"{place}: cannot run {program}"
    with contextlib.ExitStack() as stack:
        if ">" in words:
            file = stack.enter_context(open(words[-1], "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(file))
            words = words[:-2]
        try:
            status = main(list(fewer(words)))
        except SystemExit as help_was_asked_for:
            status = help_was_asked_for.code
    assert status == 0, f"{place}: {line}"


def fewer(words: list[str]) -> Iterator[str]:
    """The words of a command with fewer steps, members and so on."""
    for before, word in zip(["", *words], words, strict=False):
        yield str(max(1, int(word) // FEWER[before])) if before in FEWER else word
