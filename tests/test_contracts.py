"""Which parts import which: the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECK = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(cache_dir=None))
"""


def check_imports(root: Path) -> subprocess.CompletedProcess:
    """Check the contracts of a copy of the project, whose command line has its installed name."""
    (root / "mace_scf_jax_cli").symlink_to(root / "cli")
    return subprocess.run(
        [sys.executable, "-c", CHECK], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path):
    """A copy of the project's sources and contracts, to be changed."""
    for name in ("mace_scf_jax", "cli"):
        for source in (ROOT / name).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def test_contracts_are_kept(project):
    checked = check_imports(project)
    assert checked.returncode == 0, checked.stdout
    assert "0 broken" in checked.stdout


@pytest.mark.parametrize(
    ("place", "line", "broken"),
    [
        ("scf/status.py", "import mace_scf_jax.graph", "no atoms"),
        (
            "models/settings.py",
            "import mace_scf_jax.predict.model",
            "Each layer imports from those",
        ),
        ("predict/model.py", "import mace_scf_jax.pytorch.exchange", "what is for PyTorch"),
        ("units.py", "import mace_scf_jax_cli.main", "Nothing imports the command line"),
        ("scf/status.py", "import mace_scf_jax.scf.iterate", "No circles"),
    ],
)
def test_violations_are_found(project, place, line, broken):
    module = project / "mace_scf_jax" / place
    module.write_text(f"{module.read_text()}\n{line}\n")
    checked = check_imports(project)
    assert checked.returncode != 0
    assert any(broken in text and "BROKEN" in text for text in checked.stdout.splitlines())
