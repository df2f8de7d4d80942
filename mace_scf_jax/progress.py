"""Signs of life: how far something is, and that JAX compiles, on a terminal or in single lines."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mace_scf_jax.compilations import Pace, compilations

COMPILING = "compiling"
BAR_WIDTH = 12
INTERVAL = 0.25
"""Seconds between two looks at what goes on."""
SHOWN_AFTER = 1.0
"""Seconds of compiling before a terminal shows it."""
FIRST_LINE = 5.0
"""Seconds before a line is written where there is no terminal; then every twice as long."""
LONGEST_PAUSE = 60.0
"""Most seconds between two such lines."""


class Bar:
    """How far one thing is.

    Args:
        what: is done, in a word.
        total: number of its parts; None until it is known.
        in_lines: whether to tell it in lines where there is no terminal.
    """

    def __init__(self, what: str, total: int | None = None, *, in_lines: bool = True) -> None:
        self.what, self.total, self.in_lines = what, total, in_lines
        self.done = 0
        self.text = ""
        """Shown between the count and the times."""
        self._begun = time.monotonic()
        self._pace = Pace()
        self._pace.note(0)

    def update(self, done: int, total: int | None = None) -> None:
        """So many parts are done."""
        self.done = done
        self.total = self.total if total is None else total
        self._pace.note(done)

    def start_at(self, done: int) -> None:
        """So many parts were done by an earlier process, at a speed that nobody knows."""
        self.done, self._pace = done, Pace()
        self._pace.note(done)

    @property
    def rate(self) -> float | None:
        """Parts in a second, the time to compile left out; None before there are any."""
        return self._pace.rate

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take; None if nobody knows."""
        if self.rate is None or self.total is None:
            return None
        return (self.total - self.done) / self.rate

    def line(self, *, ascii_only: bool = False) -> str:
        """One line with a bar, numbers and times."""
        full, empty = ("#", ".") if ascii_only else ("━", "╌")
        bar = ""
        if self.total:
            filled = round(BAR_WIDTH * self.done / self.total)
            bar = full * filled + empty * (BAR_WIDTH - filled)
        parts = [self.what, bar, self._count("/")]
        told = [self.text, duration(time.monotonic() - self._begun), self._ahead()]
        return "  ".join(filter(None, (" ".join(filter(None, parts)), *told)))

    def plain_line(self) -> str:
        """One line without a bar."""
        parts = (f"{self.what}: {self._count(' of ')}", self.text, self._ahead())
        return ", ".join(filter(None, parts))

    def _count(self, of: str) -> str:
        return f"{self.done}{of}{self.total}" if self.total else str(self.done)

    def _ahead(self) -> str:
        compiling = compilations().under_way
        if compiling is not None and compiling > SHOWN_AFTER:
            return compiling_for(compiling)
        return "" if self.left is None else f"left {duration(self.left)}"


class Signs:
    """What a process shows of its work: a line at the end of a terminal, or lines now and then.

    Args:
        console: where it is shown.
        tell: takes the lines where the console is no terminal.
    """

    def __init__(self, console: Console, tell: Callable[[str], None]) -> None:
        self.console, self.tell = console, tell
        self._bars: list[Bar] = []
        self._live: Live | None = None
        self._lines = _Lines()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Signs:
        compilations()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._show("")

    @contextlib.contextmanager
    def bar(self, what: str, total: int | None = None, *, in_lines: bool = True) -> Iterator[Bar]:
        """Show how far something is, for a while; see `Bar`."""
        bar = Bar(what, total, in_lines=in_lines)
        self._bars.append(bar)
        try:
            yield bar
        finally:
            self._bars.remove(bar)

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            compiling = compilations().under_way
            bars = [bar for bar in self._bars if bar.in_lines or self.console.is_terminal]
            bar = bars[-1] if bars else None
            if self.console.is_terminal:
                self._show(self._line(bar, compiling))
            else:
                for line in self._lines.due(bar, compiling):
                    self.tell(line)

    def _line(self, bar: Bar | None, compiling: float | None) -> str:
        if bar is not None:
            return bar.line(ascii_only=self.console.options.ascii_only)
        return compiling_for(compiling) if (compiling or 0.0) > SHOWN_AFTER else ""

    def _show(self, line: str) -> None:
        """Renew the last line of the terminal."""
        if not line:
            if self._live is not None:
                self._live.stop()
            self._live = None
            return
        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self._live is not None:
            self._live.update(text, refresh=True)
            return
        self._live = Live(
            text,
            console=self.console,
            transient=True,
            auto_refresh=False,
            # what is printed goes above the line, if both are seen in one place
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start(refresh=True)


class _Lines:
    """Which lines are due where there is no terminal: fewer, the longer something takes."""

    def __init__(self) -> None:
        self._subject: Bar | str | None = None
        self._begun = 0.0
        self._next = FIRST_LINE
        self._told = False
        """Whether there was a line about the subject."""
        self._compiled = 0.0
        """Seconds of the latest compilation."""

    def due(self, bar: Bar | None, compiling: float | None) -> Iterator[str]:
        """The lines to be written now."""
        subject = bar or (None if compiling is None else COMPILING)
        if subject is not self._subject:
            if self._subject is COMPILING and self._told:
                yield f"compiled in {self._compiled:.0f} s"
            self._subject, self._told, self._next = subject, False, FIRST_LINE
            self._begun = time.monotonic() - (compiling or 0.0)
        if compiling is not None:
            self._compiled = compiling
        elapsed = time.monotonic() - self._begun
        if subject is not None and elapsed > self._next:
            self._next = elapsed + min(elapsed, LONGEST_PAUSE)
            self._told = True
            yield compiling_for(self._compiled) if bar is None else bar.plain_line()


_current: Signs | None = None


@contextlib.contextmanager
def signs_of_life(
    console: Console | None = None, tell: Callable[[str], None] | None = None
) -> Iterator[Signs]:
    """Show what the process does: its bars, and how long something compiles.

    Within another one it is the same, and only `tell` is another one for a while.

    Args:
        console: where to show it; the error output if none is given.
        tell: takes single lines where that is no terminal; by default they are written there.
    """
    global _current
    if _current is not None:
        before = _current.tell
        _current.tell = tell or before
        try:
            yield _current
        finally:
            _current.tell = before
        return
    shown_on = console or Console(stderr=True)
    signs = Signs(shown_on, tell or functools.partial(print, file=sys.stderr))
    try:
        with signs as _current:
            yield signs
    finally:
        _current = None


def compiling_for(seconds: float) -> str:
    """That something compiles, in words."""
    return f"{COMPILING} {seconds:.0f} s"


def duration(seconds: float) -> str:
    """A time as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
