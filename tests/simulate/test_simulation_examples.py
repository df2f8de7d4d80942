"""The example programs run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import ase.io
import jax
import pytest
from tiny_models import periodic, tiny_model

FOLDER = Path(__file__).parents[2] / "examples" / "simulation"
EXPECTED = {
    "with_ase.py": "step 10: ",
    "in_your_program.py": "energy went from",
    "with_jax_md.py": " K, ",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    tiny_model().save(folder / "tiny.model")
    ase.io.write(folder / "start.xyz", periodic(), format="extxyz")
    return [str(folder / "tiny.model"), str(folder / "start.xyz")]


def test_all_are_tested():
    assert {path.name for path in FOLDER.glob("*.py")} == EXPECTED.keys()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if "jax_md" in name else name for name in EXPECTED],
)
def test_an_example_runs(files, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *files])
    with jax.numpy_dtype_promotion("standard"):  # that of users, and what JAX-MD needs
        if "jax_md" in name:
            pytest.importorskip("jax_md")
        runpy.run_path(str(FOLDER / name))
    assert EXPECTED[name] in capsys.readouterr().out
