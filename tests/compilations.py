"""Which functions JAX compiles while something runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax.monitoring

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """List the names of all functions that are compiled within the block, as they come."""
    names: list[str] = []

    def listen(event: str, duration: float, *, fun_name: str = "", **_) -> None:
        if event == COMPILED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
