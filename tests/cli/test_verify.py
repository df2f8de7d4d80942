"""``mace-scf-jax verify``: a table per file, and an exit status that says how it went."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax_cli.main import main

REFERENCE = Path(__file__).parent.parent / "data/reference/electrostatics/pbc_l1.npz"


@pytest.fixture
def deviating(tmp_path) -> str:
    """A reference file with an energy that is wrong by 1e-6."""
    with np.load(REFERENCE) as archive:
        arrays = dict(archive)
    arrays["out_energy"] = arrays["out_energy"] + 1e-6
    path = tmp_path / "deviating.npz"
    np.savez(path, **arrays)
    return str(path)


def test_agreement(capsys):
    assert main(["verify", str(REFERENCE)]) == 0
    shown = capsys.readouterr().out
    assert "pbc_l1.npz" in shown
    assert "ok" in shown
    assert "EXCEEDED" not in shown


def test_deviation(capsys, deviating):
    assert main(["verify", str(REFERENCE), deviating]) == 1
    shown = capsys.readouterr().out
    assert shown.count("EXCEEDED") == 1
    assert "1.0e-06" in shown


def test_files_that_cannot_be_compared_do_not_stop_the_others(capsys, tmp_path, deviating):
    truncated = tmp_path / "truncated.npz"
    shutil.copy(REFERENCE, truncated)
    truncated.write_bytes(truncated.read_bytes()[:-200])
    assert main(["verify", "nowhere.npz", str(truncated), deviating]) == 2
    captured = capsys.readouterr()
    assert "error: nowhere.npz: no such file" in captured.err
    assert "truncated.npz: not a readable .npz file" in captured.err
    assert "EXCEEDED" in captured.out
