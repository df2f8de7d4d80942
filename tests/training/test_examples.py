"""Configurations of the examples and of the pages on families are valid and ready to train."""

from __future__ import annotations

import re
from pathlib import Path

import ase.io
import pytest
import yaml
from tiny_models import CHARGED_FAMILIES, SMALL_TRAINING

from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.preparation import prepare_run

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/*.yaml"))
WATER = [path for path in EXAMPLES if path.parent.name == "water_ions"]
UNTRAINED = [path for path in WATER if path.stem != "fixed_point"]
"""The other one is trained in `test_fixed_point_run.py`."""
QUICK = {"config", "split_charges", "chebyshev_qeq"}
MADE = {"gfn2_all.xyz"}
"""Training files that are not here; a program beside the example makes them."""
SMALLER = SMALL_TRAINING | {"valid_fraction": 0.5}


@pytest.mark.parametrize(
    "path", EXAMPLES, ids=[f"{path.parent.name}/{path.stem}" for path in EXAMPLES]
)
def test_examples_are_valid(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    options = TrainOptions(**yaml.safe_load(path.read_text()))
    assert all(remark.startswith("Taken from the start model") for remark in options.remarks)
    assert str(options.train_file) in MADE or Path(options.train_file).is_file()


@pytest.fixture(scope="module")
def few_structures(tmp_path_factory) -> Path:
    """A file with four small structures of the examples, which have all elements."""
    structures = ase.io.read(ROOT / "examples/water_ions/train.xyz", ":")
    chosen = [atoms for atoms in structures if str(atoms.symbols) == "NaClOH2"]
    file = tmp_path_factory.mktemp("few") / "train.xyz"
    ase.io.write(file, chosen[:4], format="extxyz")
    return file


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in UNTRAINED
    ],
)
def test_examples_are_ready_to_train(path, few_structures, tmp_path):
    """Data, model and losses fit together: all that is done before the first step is compiled."""
    files = {"train_file": few_structures, "work_dir": tmp_path}
    options = TrainOptions(**yaml.safe_load(path.read_text()) | SMALLER | files)
    prepared = prepare_run(options)
    assert prepared.settings.family == options.model
    assert prepared.data_record["train"]["elements"] == {"H": 4, "O": 2, "Na": 2, "Cl": 2}


def test_the_example_of_titania_is_ready_to_train(tmp_path):
    few = tmp_path / "few.xyz"
    ase.io.write(few, ase.io.read(ROOT / "examples/tio2/train.xyz", ":4"), format="extxyz")
    values = yaml.safe_load((ROOT / "examples/tio2/config.yaml").read_text())
    files = {"train_file": few, "work_dir": tmp_path, "valid_fraction": 0.5, "batch_size": 2}
    prepared = prepare_run(TrainOptions(**values | files))
    assert prepared.settings.family == "ChebyshevANN"
    assert prepared.settings.backbone.descriptor.size == 56
    assert prepared.energies is not None


@pytest.mark.parametrize(
    ("example", "family"),
    [
        pytest.param("fine_tuning", "LocalCharges", marks=pytest.mark.slow),
        ("latent_charges", "LocalCharges"),
    ],
)
def test_the_other_examples_are_ready_to_train(example, family, tmp_path, monkeypatch):
    folder = ROOT / "examples" / example
    values = yaml.safe_load((folder / "config.yaml").read_text())
    few = tmp_path / "few.xyz"
    ase.io.write(few, ase.io.read(folder / values["train_file"], ":6"), format="extxyz")
    values |= {"train_file": few, "work_dir": tmp_path, "valid_fraction": 0.5, "batch_size": 3}
    if "test_file" in values:
        values["test_file"] = few
    monkeypatch.chdir(folder)
    assert prepare_run(TrainOptions(**values)).settings.family == family


def test_every_charged_family_has_an_example():
    models = {yaml.safe_load(path.read_text())["model"] for path in WATER}
    assert models == set(CHARGED_FAMILIES)


def test_the_configuration_of_plain_mace_is_complete():
    text = (ROOT / "docs" / "families" / "mace.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert TrainOptions(**yaml.safe_load(block)).model == "ScaleShiftMACE"
