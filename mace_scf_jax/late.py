"""What is imported when it is first used, because what it needs is slow to import.

A package with names that are imported late tells them as imports for type checkers and readers::

    if TYPE_CHECKING:
        from mace_scf_jax.simulate.calculator import MACESCFCalculator

    __getattr__, __dir__ = imported_late(__name__, __file__)
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NOTHING = object()


def late_field(default: Any = _NOTHING) -> Any:
    """Return a field of a dataclass whose value may be given as its `place`.

    It is imported when the field is read.

    Args:
        default: the value, or its place, where none is given.
    """
    return _LateField(default)


class _Place(str):
    """Where something is."""


def place(text: str) -> Any:
    """Say where the value of a `late_field` is, as ``module:name``."""
    return _Place(text)


class _LateField:
    """A descriptor, which dataclasses take as the default that it returns for the class."""

    def __init__(self, default: Any) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            if self._default is _NOTHING:
                raise AttributeError(self._name)
            return self._default
        value = vars(instance)[self._name]
        if isinstance(value, _Place):
            module, _, name = value.partition(":")
            value = vars(instance)[self._name] = getattr(importlib.import_module(module), name)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value


def imported_late(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        file: its ``__file__``, with the imports in a block ``if TYPE_CHECKING``.
    """
    places = _named_in(file)

    def get(name: str) -> Any:
        """The object of a name, imported now."""
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if places[name] == package:  # a module of the package
            return importlib.import_module(f"{package}.{name}")
        found = getattr(importlib.import_module(places[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        """All names, those of what is not imported yet among them."""
        return sorted({*vars(sys.modules[package]), *places})

    return get, names


def import_all(module: str, file: str) -> None:
    """Import now what a module names in a block ``if TYPE_CHECKING``.

    Args:
        module: its ``__name__``.
        file: its ``__file__``.
    """
    for name, place in _named_in(file).items():
        found = getattr(importlib.import_module(place), name)
        vars(sys.modules[module]).setdefault(name, found)


def _named_in(file: str) -> dict[str, str]:
    """The module of each name that is imported in a block ``if TYPE_CHECKING``."""
    blocks = (node for node in ast.parse(Path(file).read_bytes()).body if isinstance(node, ast.If))
    return {
        alias.name: statement.module
        for block in blocks
        if ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
