"""Names of packages that are imported when they are first used, because what they need is slow.

Such a package names them once, as imports for type checkers and readers::

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


def imported_late(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        file: its ``__file__``, with the imports in a block ``if TYPE_CHECKING``.
    """
    blocks = (node for node in ast.parse(Path(file).read_bytes()).body if isinstance(node, ast.If))
    places = {
        alias.name: (statement.module, alias.name)
        for block in blocks
        if ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }

    def get(name: str) -> Any:
        """The object of a name, imported now."""
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = places[name]
        found = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        """All names, those of what is not imported yet among them."""
        return sorted({*vars(sys.modules[package]), *places})

    return get, names
