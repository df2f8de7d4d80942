"""Training of descriptor potentials: features computed before change nothing but the time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write

from mace_scf_jax import load_model
from mace_scf_jax.backbones.chebyshev import stored
from mace_scf_jax.backbones.chebyshev.measured import energy_constants
from mace_scf_jax.data import stored_set
from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.stored_set import open_stored
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.training.config.options import options_from
from mace_scf_jax.training.preparation import prepare_run
from mace_scf_jax.training.settings import data_settings
from mace_scf_jax_cli.main import main

DESCRIPTOR = {"rad_order": 3, "rad_cutoff": 4.0, "ang_order": 2, "ang_cutoff": 3.0}
CONFIG = {
    "name": "salt",
    "train_file": "train.xyz",
    "valid_fraction": 0.25,
    "E0s": {"Na": 0.0, "Cl": 0.0},
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "model": "ChebyshevANN",
    "descriptor": DESCRIPTOR,
    "arch": [[3, "tanh"]],
    "batch_size": 2,
    "valid_batch_size": 4,
    "optimizer": "adam",
    "train_schedule": {
        0: {"name": "energies", "start": 0, "end": 1, "lr": 0.01, "loss": {"energy_per_atom": 1}},
        1: {"name": "forces", "start": 2, "end": 3, "lr": 0.01, "force_weight": 0.5},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve rattled cells of salt, some of whose atoms are outside their cell."""
    folder = tmp_path_factory.mktemp("salt")
    structures = []
    for seed in range(12):
        atoms = bulk("NaCl", "rocksalt", 5.2, cubic=False)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = LennardJones(sigma=2.2, epsilon=0.1, rc=4.0)
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        atoms.positions[0] += atoms.cell[seed % 3]
        structures.append(atoms)
    write(folder / "train.xyz", structures)
    return folder


def losses_of(folder):
    """The losses of all steps of a run."""
    (results,) = (folder / "results").glob("*train.txt")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line.get("mode") == "opt"])


def train(folder, monkeypatch, **changes):
    """Train in a folder of its own; the losses of all steps, and the model of the last stage."""
    own = folder / "-".join(f"{name}-{value}" for name, value in changes.items()).replace("/", "_")
    own.mkdir()
    (own / "train.xyz").symlink_to(folder / "train.xyz")
    (own / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    monkeypatch.chdir(own)
    assert main(["train", "config.yaml"]) == 0
    return losses_of(own), load_model(own / "salt_forces.model.safetensors")


@pytest.fixture(scope="module")
def runs(folder):
    """With and without features computed before."""
    with pytest.MonkeyPatch.context() as patch:
        return {word: train(folder, patch, cache_features=word) for word in ("true", "false")}


def test_features_computed_before_change_no_loss_and_no_weight(runs):
    (losses, model), (expected, other) = runs["true"], runs["false"]
    assert len(losses) == 16
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    for element in ("Na", "Cl"):
        found = model.parameters["backbone"]["energy"][element]
        wanted = other.parameters["backbone"]["energy"][element]
        for name, values in found.items():
            np.testing.assert_allclose(values, wanted[name], rtol=1e-7, err_msg=name)


@pytest.fixture(scope="module")
def preprocessed(folder):
    """Shards with features and derivatives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
        words = ["--derivatives", "--workers", "1", "--shard_size", "0.002"]
        assert main(["preprocess", "config.yaml", "-o", "data", *words]) == 0
    assert len(list((folder / "data/train").iterdir())) > 1
    return folder / "data"


def test_preprocessed_features_change_no_loss(folder, runs, preprocessed, monkeypatch):
    """They are read batch by batch, and the run computes none."""
    monkeypatch.setattr(stored_set, "KEPT_BYTES", 0)
    for name in ("descriptors", "derivatives_by_vectors"):
        monkeypatch.setattr(stored, name, None)
    losses, _ = train(folder, monkeypatch, train_file="../data")
    np.testing.assert_allclose(losses, runs["false"][0], rtol=1e-9)
    text = next((folder / "train_file-.._data" / "logs").glob("*.log")).read_text()
    assert "Features and their derivatives of" in text
    assert "are read from files" in text
    assert "computed once" not in text


def test_edges_are_those_of_the_structures_for_whoever_reads_no_features(preprocessed, folder):
    data = {
        name: load_datasets(data_settings(options_from(CONFIG | {"train_file": file}))).train
        for name, file in {"files": folder / "train.xyz", "shards": preprocessed}.items()
    }
    model = {"elements": (11, 17), "cutoff": 4.0, "kspace_cutoff": None}
    expected, found = (data[name].prepare(**model) for name in ("files", "shards"))
    assert found.with_stored_features(derivatives=False) is None
    for one, other in zip(expected, found, strict=True):
        for name in ("senders", "receivers", "cell_shifts"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rad_order": 4},
            r"data: preprocessed with features of rad_order 3 \(the run asks for 4\)",
        ),
        (
            {"ang_cutoff": 2.5},
            r"features of ang_cutoff 3 \(the run asks for 2\.5\)\. Preprocess ag",
        ),
        ({"rad_cutoff": 3.5}, r"r_max 4 Å \(.* 3\.5 Å\); features of rad_cutoff 4 \(.* 3\.5\)"),
        ({"min_cutoff": 0.6}, r"features of min_cutoff 0\.55 \(the run asks for 0\.6\)"),
        ({"species": ["Cl", "Na"]}, r"features of species Na, Cl \(the run asks for Cl, Na\)"),
    ],
)
def test_features_of_another_descriptor_are_refused(
    preprocessed, monkeypatch, capsys, tmp_path, changes, message
):
    changed = CONFIG | {"train_file": str(preprocessed), "descriptor": DESCRIPTOR | changes}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "config.yaml"]) == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_stored_features_may_be_left_unread(preprocessed):
    """Then the descriptor is free, within the cutoff of the edges."""
    free = {"descriptor": DESCRIPTOR | {"ang_order": 1}, "cache_features": "false"}
    prepared = prepare_run(options_from(CONFIG | {"train_file": str(preprocessed)} | free))
    assert next(iter(prepared.training.epoch(0))).descriptors is None


@pytest.mark.parametrize("table", ["values", "pairs", "by_vector", "by_cell"])
def test_features_that_changed_are_noticed(preprocessed, tmp_path, table):
    shard = sorted((preprocessed / "train").iterdir())[0]
    path = shutil.copy(shard, tmp_path)
    with h5py.File(path, "r+") as file:
        file[f"features/{table}"][0, 0] += 1
    members = open_stored(path, split="train")
    structures = members.prepare(
        elements=(11, 17), cutoff=4.0, kspace_cutoff=None, features=members.description.features
    )
    assert structures[0].num_edges > 0
    with pytest.raises(DataError, match=r"structure 0 does not have the checksum"):
        structures.with_stored_features(derivatives=True).stack(np.arange(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "MACE", "hidden_irreps": "1x0e"}, "expected a model on descriptors"),
        ({"cache_features": False}, "with cache_features auto or true"),
        ({"descriptor": {**DESCRIPTOR, "species": ["Na"]}}, "found no Cl in Na"),
    ],
)
def test_derivatives_of_no_features_are_refused(
    folder, monkeypatch, capsys, tmp_path, changes, message
):
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(CONFIG | {"train_file": str(folder / "train.xyz")} | changes)
    )
    monkeypatch.chdir(tmp_path)
    assert main(["preprocess", "config.yaml", "-o", "data", "--derivatives", "--workers", "1"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_levenberg_marquardt_steps_learn_in_fewer_epochs(folder, runs, monkeypatch):
    """One step an epoch on all structures, with a loss that falls in each."""
    losses, model = train(folder, monkeypatch, optimizer="levenberg_marquardt")
    assert len(losses) == 4
    assert losses[1] < losses[0]
    assert losses[3] < losses[2] < runs["true"][0][-1]
    assert model.settings.family == "ChebyshevANN"


def test_the_log_tells_what_is_computed_before(folder, runs):
    text = next((folder / "cache_features-true" / "logs").glob("*.log")).read_text()
    assert "Features and their derivatives of" in text
    assert re.search(r"Compiled 4 training steps for bucket 1 \(3 graphs, \d+ atoms, ", text)
    without = next((folder / "cache_features-false" / "logs").glob("*.log")).read_text()
    assert "computed once" not in without


def test_constants_are_measured_on_the_training_set(folder, runs):
    """Energies between -1 and 1 by the scale, features with mean 0 and deviation 1."""
    _, model = runs["true"]
    backbone = model.settings.backbone
    assert len(backbone.features.mean) == 1
    assert len(set(backbone.E_scaling)) == 1
    assert backbone.E_scaling[0] > 0.0
    low, high = np.array(backbone.features.minimum), np.array(backbone.features.maximum)
    assert np.all(low <= np.array(backbone.features.mean))
    assert np.all(np.array(backbone.features.mean) <= high)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": None}, "option 'arch' is required by the backbone chebyshev"),
        ({"arch": [[3, "relu"]]}, r"activations linear, tanh, .* found \[\[3, 'relu'\]\]"),
        ({"arch": {"Na": [[3, "tanh"]]}}, "expected layers for the elements .* Na, Cl, found Na"),
        ({"descriptor": {**DESCRIPTOR, "species": ["Na"]}}, "found no Cl in Na"),
        ({"descriptor": {**DESCRIPTOR, "orders": 3}}, "descriptor: unknown key 'orders'"),
        ({"feature_stats": {"mean": [0.0], "std": [1.0]}}, "expected 14 features, found 1"),
        ({"backbone": "MACE", "hidden_irreps": "1x0e"}, "needs a backbone with descriptors"),
        (
            {
                "model": "LocalSplitCharges",
                "backbone": "chebyshev",
                "atomic_formal_charges": {"Na": 1.0, "Cl": -1.0},
            },
            "LocalSplitCharges needs a backbone with",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder, monkeypatch, capsys, tmp_path, changes, message
):
    (tmp_path / "train.xyz").symlink_to(folder / "train.xyz")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "config.yaml", "--dry_run"]) != 0
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("given", [{"E_shift": -3.5}, {"E_scaling": 2.0}])
def test_scale_and_shift_can_be_given_one_by_one(folder, given):
    """The other one is measured."""
    options = options_from(CONFIG | given | {"train_file": folder / "train.xyz"})
    data = load_datasets(data_settings(options))
    training = TrainingSet(data.elements, (0.0, 0.0), None, data.train.catalogue, list)
    scaling, shift = energy_constants(options, training)
    energies = data.train.catalogue.energy / data.train.catalogue.num_atoms
    assert scaling == given.get("E_scaling", 2.0 / np.ptp(energies))
    assert shift == given.get("E_shift", 0.5 * (energies.min() + energies.max()))


@pytest.mark.slow
def test_two_devices_train_like_one(folder, tmp_path):
    """Batches are divided, with their features; a device has steps of its own, one in each call."""
    (tmp_path / "train.xyz").symlink_to(folder / "train.xyz")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    several = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    losses = {}
    for number in (1, 2):
        words = ["train", "config.yaml", "--devices", str(number), "--work_dir", f"on-{number}"]
        command = [sys.executable, "-m", "mace_scf_jax_cli.main", *words]
        subprocess.run(command, cwd=tmp_path, env=several, check=True, capture_output=True)
        losses[number] = losses_of(tmp_path / f"on-{number}")
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-9)
