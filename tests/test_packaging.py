"""What is installed is what is in the repository."""

from __future__ import annotations

import tomllib
from pathlib import Path

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
