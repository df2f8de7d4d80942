"""What is installed is what is in the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import mace_scf_jax
import mace_scf_jax.training

ROOT = Path(__file__).parent.parent


def test_every_folder_with_modules_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in (ROOT / "mace_scf_jax").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert found | {"mace_scf_jax_cli"} == listed


def test_a_known_bad_jax_is_excluded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (jax,) = [entry for entry in project["project"]["dependencies"] if entry.startswith("jax>")]
    assert "!=0.10.2" in jax


def test_the_files_of_the_equations_exist():
    page = (ROOT / "docs/development/architecture.md").read_text(encoding="utf-8")
    table = page.partition("| equation | file |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w/]+\.py)`", table)
    assert len(named) >= 20
    assert all((ROOT / "mace_scf_jax" / name).is_file() for name in named)


def test_type_annotations_are_for_users_too():
    assert (ROOT / "mace_scf_jax/py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"mace_scf_jax": ["py.typed"]}


@pytest.mark.parametrize("package", [mace_scf_jax, mace_scf_jax.training])
def test_names_that_are_imported_late_can_be_completed(package):
    assert set(package.__all__) <= set(dir(package))
