"""Log files, messages on the terminal, and the progress bar between them."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

PACKAGE_LOGGER = "mace_scf_jax"
FILES_ONLY = {"files_only": True}
"""The `extra` of messages that are too long for a terminal."""


class LineFormatter(logging.Formatter):
    """``YYYY-MM-DD HH:MM:SS.mmm LEVEL: message``."""

    def __init__(self):
        super().__init__("%(asctime)s %(levelname)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Local time to the millisecond."""
        moment = datetime.datetime.fromtimestamp(record.created)
        return moment.isoformat(sep=" ", timespec="milliseconds")


class DelayedFileHandler(logging.FileHandler):
    """Keeps messages in memory until the file may be created.

    So a run that is refused because of its input leaves no log file behind.
    """

    def __init__(self, path: Path):
        super().__init__(path, encoding="utf-8", delay=True)
        self._waiting: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, or keep it."""
        if self._waiting is None:
            super().emit(record)
        else:
            self._waiting.append(record)

    def begin(self) -> None:
        """Create the file with everything kept so far; write directly from now on."""
        waiting, self._waiting = self._waiting or [], None
        for record in waiting:
            super().emit(record)


class ConsoleHandler(logging.Handler):
    """Prints messages on a rich console, so that they appear above a progress bar."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console
        self.addFilter(lambda record: not hasattr(record, "files_only"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        self.console.print(
            self.format(record), markup=False, highlight=False, soft_wrap=True, emoji=False
        )


@contextlib.contextmanager
def logging_to(handlers: Mapping[logging.Handler, int | str]) -> Iterator[None]:
    """Send the messages of the package to these handlers, and nowhere else, for a while.

    Args:
        handlers: the least level of each handler; they are closed at the end.
    """
    package = logging.getLogger(PACKAGE_LOGGER)
    before = package.level, package.propagate
    package.setLevel(logging.DEBUG)
    package.propagate = False
    for handler, level in handlers.items():
        handler.setLevel(level)
        handler.setFormatter(LineFormatter())
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()
        package.setLevel(before[0])
        package.propagate = before[1]
