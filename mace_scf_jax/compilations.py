"""What JAX compiles: for how long in all, and whether it does so now.

JAX tells whoever listens when it begins and ends to trace, to lower and to compile a function
(`jax.monitoring`); traces of functions within functions are told too.
"""

from __future__ import annotations

import functools
import threading
import time

import jax.monitoring

_PREFIX = "/jax/core/compile/"
PAUSE = 0.2
"""Seconds between two parts of a compilation, or two compilations, that count as one."""


class Compilations:
    """An account of the time that goes into compiling, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._begun = 0.0
        """When the first of the open parts began."""
        self._ended = 0.0
        self._finished = 0.0
        """Seconds of what is over."""
        self._finished_before = 0.0
        """The same, when what is going on now began."""

    def begin(self) -> None:
        """A part of a compilation begins."""
        with self._lock:
            now = time.monotonic()
            if self._open == 0:
                if now - self._ended > PAUSE:
                    self._finished_before = self._finished
                self._begun = now
            self._open += 1

    def end(self) -> None:
        """A part of a compilation is over."""
        with self._lock:
            if self._open == 0:  # it began before anybody listened
                return
            self._open -= 1
            if self._open == 0:
                self._ended = time.monotonic()
                self._finished += self._ended - self._begun

    @property
    def seconds(self) -> float:
        """Time spent on compiling so far."""
        with self._lock:
            return self._total(time.monotonic())

    @property
    def under_way(self) -> float | None:
        """For how many seconds JAX has been compiling without a `PAUSE`; None if it does not."""
        with self._lock:
            now = time.monotonic()
            if self._open == 0 and now - self._ended > PAUSE:
                return None
            return self._total(now) - self._finished_before

    def _total(self, now: float) -> float:
        return self._finished + (now - self._begun if self._open else 0.0)


@functools.cache
def compilations() -> Compilations:
    """The account of this process, which begins with the first call."""
    account = Compilations()

    def begins(event: str, value: float, **about: str | int) -> None:
        if event.startswith(_PREFIX):
            account.begin()

    def ends(event: str, seconds: float, **about: str | int) -> None:
        if event.startswith(_PREFIX):
            account.end()

    jax.monitoring.register_scalar_listener(begins)
    jax.monitoring.register_event_duration_secs_listener(ends)
    return account


class Pace:
    """How fast something goes, without the time to compile.

    Args:
        window: seconds back to which the speed is taken.
    """

    def __init__(self, window: float = 60.0) -> None:
        self._window = window
        self._past: list[tuple[float, int]] = []

    def note(self, done: int) -> None:
        """So many parts are done now; the first call says from where the speed is counted."""
        now = time.monotonic() - compilations().seconds
        self._past.append((now, done))
        while len(self._past) > 2 and self._past[1][0] < now - self._window:
            del self._past[0]

    @property
    def rate(self) -> float | None:
        """Parts in a second; None before there are any."""
        if len(self._past) < 2:
            return None
        (begun, first), (ended, last) = self._past[0], self._past[-1]
        return (last - first) / max(ended - begun, 1e-9) if last > first else None
