from pathlib import Path

import pytest
from ase.io import write
from labelled_water import PROGRAMS, make_input, train_in
from tiny_models import periodic

from mace_scf_jax import progress


@pytest.fixture(autouse=True)
def no_lines_while_something_compiles(monkeypatch):
    """They come where a machine is slow; `test_progress.py` is about them."""
    monkeypatch.setattr(progress, "FIRST_LINE", float("inf"))


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """A folder with a model and a crystal, in which commands are given."""
    model.save(tmp_path / "model")
    write(tmp_path / "start.xyz", periodic(), format="extxyz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a training run that went through."""
    folder = tmp_path_factory.mktemp("finished")
    make_input(folder)
    PROGRAMS.clear()  # what this run compiles is told in its log
    assert train_in(folder, "--save_cpu", "--wandb_watch", "all") == 0
    return folder
