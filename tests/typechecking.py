"""The type checker of the tests: every annotated function of the package, shapes included."""

from __future__ import annotations

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float


def typechecked(function: Callable) -> Callable:
    """Check arguments and result; constructors are left alone.

    Frozen dataclasses convert what they are given (names to enums, lists to tuples), and JAX fills
    containers of arrays with whatever it maps over them, so their annotations tell what they hold,
    not what their constructors take.
    """
    return function if function.__name__ == "__init__" else _checked(function)
