"""Modules that add to the registries, and how they are found."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from mace_scf_jax import plugins
from mace_scf_jax.plugins import PluginError, load_installed_plugins, load_plugins
from mace_scf_jax.registry import Registry, UnknownNameError
from mace_scf_jax_cli.main import main


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name


def test_a_registry_is_a_mapping_in_the_order_of_additions():
    registry = Registry("thing", Thing("b"), Thing("a"))
    assert list(registry) == ["b", "a"]
    assert registry.get("c") is None
    with pytest.raises(UnknownNameError, match="unknown thing 'aa'; did you mean 'a'"):
        registry["aa"]


def test_two_things_have_two_names():
    registry = Registry("thing", Thing("a"))
    with pytest.raises(ValueError, match="thing 'a': found a second one of that name"):
        registry.add(Thing("a"))
    registry.add(registry["a"])  # the same once more


def test_a_plugin_of_the_current_folder_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "a_plugin_of_a_folder.py").write_text("LOADED = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_plugins(["a_plugin_of_a_folder"])
    assert sys.modules["a_plugin_of_a_folder"].LOADED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "plugin 'broken_plugin': found no module of that name, neither installed nor in"),
        ("import no_such_module_at_all", "plugin 'broken_plugin': No module named 'no_such_module"),
        ("1 / 0", "plugin 'broken_plugin': ZeroDivisionError: division by zero"),
    ],
)
def test_plugins_that_cannot_be_loaded_are_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if text is not None:
        (tmp_path / "broken_plugin.py").write_text(text)
    with pytest.raises(PluginError, match=message):
        load_plugins(["broken_plugin"])


def test_plugins_of_installed_packages_are_loaded_once(monkeypatch):
    loaded = []

    class Entry:
        name, dist = "theirs", None

        def load(self):
            loaded.append(self.name)

    def entries(*, group):
        assert group == plugins.ENTRY_POINTS
        return [Entry()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entries)
    load_installed_plugins.cache_clear()
    load_installed_plugins()
    load_installed_plugins()
    assert loaded == ["theirs"]
    load_installed_plugins.cache_clear()


@pytest.mark.parametrize(
    "words", [["--plugins", "none_of_this_name"], ["--plugins=none_of_this_name"]]
)
def test_every_command_takes_plugins(words, capsys):
    assert main(["info", "a.model", *words]) == 2
    assert "error: plugin 'none_of_this_name': found no module" in capsys.readouterr().err


def test_the_option_needs_a_value(capsys):
    assert main(["info", "a.model", "--plugins"]) == 2
    assert "option --plugins needs a value" in capsys.readouterr().err
