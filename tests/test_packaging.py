"""What is installed is what is in the repository, and what is said of it is said everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import mace_scf_jax
import mace_scf_jax.training

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPE = yaml.safe_load((ROOT / "packaging/conda-forge/recipe.yaml").read_text())
OF_CONDA_FORGE = {
    "flatbuffers": "python-flatbuffers",
    "matplotlib": "matplotlib-base",
    "vesin": "python-vesin",
}
"""Names of packages that are not those of PyPI."""


def test_every_folder_with_modules_is_installed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in (ROOT / "mace_scf_jax").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert found | {"mace_scf_jax_cli"} == listed


def test_a_known_bad_jax_is_excluded():
    (jax,) = [entry for entry in PROJECT["project"]["dependencies"] if entry.startswith("jax>")]
    assert "!=0.10.2" in jax


def test_the_recipe_of_conda_forge_needs_what_the_package_needs():
    needed = {f"python >={PROJECT['project']['requires-python'].removeprefix('>=')}"}
    for entry in PROJECT["project"]["dependencies"]:
        name, versions = re.fullmatch(r"([\w-]+)(.*)", entry).groups()
        needed.add(f"{OF_CONDA_FORGE.get(name, name)} {versions}")
    oldest = RECIPE["context"]["python_min"]
    written = RECIPE["requirements"]["run"]
    assert {line.replace("${{ python_min }}", oldest) for line in written} == needed
    (build,) = PROJECT["build-system"]["requires"]
    assert build.replace(">", " >") in RECIPE["requirements"]["host"]


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert str(citation["version"]) == RECIPE["context"]["version"] == mace_scf_jax.__version__
    assert released[:1] in ([mace_scf_jax.__version__], [])


@pytest.mark.parametrize("file", ["CITATION.cff", "packaging/conda-forge/recipe.yaml"])
def test_addresses_are_those_of_the_project(file):
    known = set(PROJECT["project"]["urls"].values())
    named = re.findall(r"https://(?!pypi)\S*/mace-scf-jax\b[^\s\"]*", (ROOT / file).read_text())
    assert named
    assert set(named) <= known


def test_the_files_of_the_equations_exist():
    page = (ROOT / "docs/development/architecture.md").read_text(encoding="utf-8")
    table = page.partition("| equation | file |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w/]+\.py)`", table)
    assert len(named) >= 20
    assert all((ROOT / "mace_scf_jax" / name).is_file() for name in named)


def test_type_annotations_are_for_users_too():
    assert (ROOT / "mace_scf_jax/py.typed").is_file()
    assert PROJECT["tool"]["setuptools"]["package-data"]["mace_scf_jax"] == ["py.typed"]


@pytest.mark.parametrize("package", [mace_scf_jax, mace_scf_jax.training])
def test_names_that_are_imported_late_can_be_completed(package):
    assert set(package.__all__) <= set(dir(package))
