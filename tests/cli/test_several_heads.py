"""Training on several levels of theory, and the model of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import read, write
from labelled_water import config, train_in, water

from mace_scf_jax import load_model
from mace_scf_jax_cli.main import main

SHIFT = 500.0
"""eV by which the second level differs per molecule."""
OUTPUT = "water_b.model.safetensors"


def options() -> dict:
    """Two heads, told apart by the files of their structures."""
    keys = {"info_keys": {"energy": "REF_energy"}, "arrays_keys": {"forces": "REF_forces"}}
    return config() | {
        "model": "ScaleShiftMACE",
        "train_file": "level_*.xyz",
        "valid_fraction": 0.4,
        "test_file": "test.xyz",
        "heads": {
            "pbe": keys | {"files": "*_pbe.xyz"},
            "r2scan": keys
            | {
                "files": "*_r2scan.xyz",
                "E0s": {"H": -10.0, "O": -2400.0},
                "loss_weights": {"forces": 0.5},
            },
        },
    }


def at_level(index: int, level: str):
    atoms = water(index)
    if level == "r2scan":
        atoms.info["REF_energy"] -= SHIFT
    return atoms


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("heads")
    for level in ("pbe", "r2scan"):
        structures = [at_level(index, level) for index in range(6)]
        write(folder / f"level_{level}.xyz", structures, format="extxyz")
    tests = [at_level(7, "pbe"), at_level(8, "r2scan")]
    for atoms, level in zip(tests, ("pbe", "r2scan"), strict=True):
        atoms.info["head"] = level
    write(folder / "test.xyz", tests, format="extxyz")
    (folder / "config.yaml").write_text(yaml.safe_dump(options(), sort_keys=False))
    assert train_in(folder) == 0
    return folder


def test_every_head_has_energies_scale_and_errors_of_its_own(run):
    model = load_model(run / OUTPUT)
    assert model.settings.heads == ("pbe", "r2scan")
    pbe, r2scan = model.settings.atomic_energies
    assert r2scan == (-10.0, -2400.0)
    assert 2.0 * pbe[0] + pbe[1] == pytest.approx(-2003.0, abs=3.0)
    assert model.settings.own.shift[1] != model.settings.own.shift[0]
    log = next((run / "logs").glob("*.log")).read_text()
    for name in ("valid_pbe", "valid_r2scan", "water_pbe", "water_r2scan"):
        assert f"| {name}" in log
    assert "Energies of isolated atoms of the head r2scan / eV: H -10.0000, O -2400.0000" in log


def test_the_file_of_a_run_names_heads_by_structure_or_one_is_chosen(run, capsys):
    output = run / "predicted.xyz"
    words = ["evaluate", str(run / OUTPUT), str(run / "test.xyz")]
    assert main([*words, "--output", str(output)]) == 0
    energies = [atoms.info["MACE_energy"] for atoms in read(output, index=":")]
    assert energies[0] - energies[1] == pytest.approx(SHIFT, abs=30.0)
    for place, head in enumerate(("pbe", "r2scan")):
        assert main([*words, "--head", head, "--output", str(output)]) == 0
        assert read(output, index=":")[place].info["MACE_energy"] == pytest.approx(
            energies[place], abs=1e-7
        )
    assert main([*words, "--head", "pb"]) == 2
    assert "expected one of pbe, r2scan, found 'pb'; did you mean 'pbe'?" in capsys.readouterr().err


def test_the_model_of_one_head_is_saved_like_any_other(run, capsys):
    words = ["export", str(run / OUTPUT), str(run / "r2scan.model.safetensors")]
    assert main([*words, "--head", "r2scan"]) == 0
    one = load_model(run / "r2scan.model.safetensors")
    assert one.settings.heads == ()
    atoms = water(3)
    (found,) = one.predict([atoms])
    (expected,) = load_model(run / OUTPUT).using(head="r2scan").predict([atoms])
    np.testing.assert_array_equal(found["forces"], expected["forces"])
    assert main(["info", str(run / OUTPUT)]) == 0
    assert "isolated atoms of r2scan / eV" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(words)
    assert "of one head alone (--head NAME)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "chebyshev", "model": "LocalCharges"}, "heads: expected one with the"),
        ({"max_energy": 1.0}, "max_energy: found beside several heads"),
        ({"train_file": "unnamed.xyz"}, "names no head"),
    ],
)
def test_what_does_not_go_with_several_heads(run, monkeypatch, capsys, change, message):
    monkeypatch.chdir(run)
    given = options() | change
    if "train_file" in change:
        write(run / "unnamed.xyz", [water(1), water(2)], format="extxyz")
    (run / "other.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    assert main(["train", "other.yaml", "--name", "other"]) == 2
    assert message in capsys.readouterr().err
