"""Modules that add to the registries: families, backbones, losses, solvers and so on.

A plugin is a Python module that adds to registries when it is imported. Installed packages announce
theirs as entry points of the group ``mace_scf_jax.plugins``; a configuration names others with
``plugins: [module]``, and every command takes ``--plugins module``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable

ENTRY_POINTS = "mace_scf_jax.plugins"
"""Group of entry points by which installed packages announce plugins."""


class PluginError(ValueError):
    """A plugin is missing or cannot be imported."""


def load_plugins(names: Iterable[str]) -> None:
    """Import plugins by the names of their modules, also from the current folder.

    Raises:
        PluginError: there is no such module, or it raises an error; names it.
    """
    for name in names:
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise PluginError(f"plugin {name!r}: {error}") from error
            raise PluginError(
                f"plugin {name!r}: found no module of that name, neither installed nor in {here}"
            ) from error
        except Exception as error:
            raise PluginError(f"plugin {name!r}: {type(error).__name__}: {error}") from error


def advice_on_plugins(names: Iterable[str]) -> str:
    """Return a sentence on the plugins among some that are not loaded; empty if all are."""
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return ""
    return (
        f". It was made with the plugins {', '.join(missing)}, which are not loaded: import them "
        f"first, or give --plugins {','.join(missing)}"
    )


@functools.cache
def load_installed_plugins() -> None:
    """Import the plugins that installed packages announce, once in a process.

    Raises:
        PluginError: one of them raises an error; names it and its package.
    """
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            package = "" if entry.dist is None else f" of the package {entry.dist.name}"
            raise PluginError(
                f"plugin {entry.name!r}{package}: {type(error).__name__}: {error}"
            ) from error
