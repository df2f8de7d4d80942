"""Timing of one function, and the memory of the process. Used by both sides of a comparison."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any


def time_calls(function: Callable[[], Any], *, seconds: float = 6.0, least: int = 7) -> dict:
    """Median and shortest wall time of calls, in seconds, after three calls to warm up."""
    for _ in range(3):
        function()
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 200):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return {"median_s": statistics.median(times), "min_s": min(times), "calls": len(times)}


def time_in_turns(
    functions: dict[str, Callable[[], Any]],
    *,
    seconds: float = 8.0,
    least: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict]:
    """`time_calls` of several functions, in turns: what slows the machine down meets all of them.

    Every turn calls each function twice and times the second call, so that none profits from what
    the one before left in the caches. `time.process_time` as clock counts work alone, where others
    use the processor too.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    enough = seconds * len(functions)
    while min(map(len, times.values())) < least or time.perf_counter() - begun < enough:
        for name, function in functions.items():
            function()
            started = clock()
            function()
            times[name].append(clock() - started)
    return {
        name: {"median_s": statistics.median(found), "min_s": min(found), "calls": len(found)}
        for name, found in times.items()
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
