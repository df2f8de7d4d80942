"""What the documentation tells users to type does run."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from pages import RUNNING, SHOWN, blocks, pages
from workplace import fill

from mace_scf_jax.models import OUTPUTS
from mace_scf_jax.scf import SOLVERS
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop import steps
from mace_scf_jax.training.losses import LOSSES


def check_electrostatics(names: dict[str, Any]) -> None:
    """The library of electrostatics says the truth."""
    np.testing.assert_allclose(np.sum(names["forces"], axis=0), 0.0, atol=1e-12)
    assert names["features"].shape == (2, 8)
    assert names["virials"].shape == names["graph"].cell.shape
    graph, multipoles, settings = (names[name] for name in ("graph", "multipoles", "settings"))
    features = functools.partial(names["batch_field_features"], settings=settings)
    expected = jax.jit(features)(graph, multipoles)
    np.testing.assert_allclose(names["v"], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        np.sum(names["adjoint"] * multipoles), np.sum(names["v"]), rtol=1e-10
    )


CHECKS = {"electrostatics_library": check_electrostatics}
"""What the results of a page have to be."""
BLOCKS = [block for page in pages() for block in blocks(page)]
PROGRAMS = {page: [block for block in blocks(page) if block.runs] for page in pages()}
QUICK = {
    page: quick
    for page, programs in PROGRAMS.items()
    if (quick := [block for block in programs if not block.is_slow])
}
SLOW = [page for page, programs in PROGRAMS.items() if any(block.is_slow for block in programs)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Iterator[Path]:
    """The files, made once; all training runs share their compiled steps."""
    programs = steps.Programs()
    folder = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "Programs", lambda: programs)
        fill(folder)
        yield folder


@pytest.fixture
def workplace(filled, tmp_path, monkeypatch) -> Path:
    """A folder of its own for each page, with the files that pages speak of.

    What a page adds to a registry is forgotten afterwards.
    """
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for registry in (LOSSES, OUTPUTS, SOLVERS):
        monkeypatch.setattr(registry, "_things", dict(registry))
    return tmp_path


def run(programs) -> dict[str, Any]:
    """The names that the programs have defined in the end."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"):  # that of users
        for block in programs:
            block.run(names)
    return names


@pytest.mark.parametrize("page", QUICK, ids=lambda page: page.stem)
@pytest.mark.usefixtures("workplace")
def test_programs_of_a_page_run(page):
    names = run(QUICK[page])
    CHECKS.get(page.stem, dict)(names)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.stem)
@pytest.mark.usefixtures("workplace")
def test_all_programs_of_a_page_run(page):
    run(PROGRAMS[page])


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_is_of_a_known_kind(block):
    assert block.language in (*RUNNING, *SHOWN)
    if block.language in RUNNING:
        return
    assert not block.text.startswith(("mace-scf-jax", "import ", "from "))
    if block.language == "yaml":
        options = yaml.safe_load(block.text)
        assert options.keys() <= TrainOptions.model_fields.keys() | {"loss"}, block.place
