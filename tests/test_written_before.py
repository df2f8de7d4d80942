"""Files that version 0.1 wrote are read and used; see `data/README.md`."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read

from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.datasets import DataSettings, load_datasets
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.stored_set import open_stored
from mace_scf_jax.models.model_file import load_model_file
from mace_scf_jax.predict.committee import load_committee
from mace_scf_jax.simulate import load_model
from mace_scf_jax_cli.main import main

FOLDER = Path(__file__).parent / "data" / "written_before"
MODELS = sorted(path.name for path in (FOLDER / "models").glob("*.model.safetensors"))


def assert_same_predictions(found, expected) -> None:
    assert expected
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-8, atol=1e-8, err_msg=name)


def test_there_is_a_model_of_each_family():
    assert len(MODELS) == 8


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("FixedPoint") else name
        for name in MODELS
    ],
)
def test_models_predict_what_they_did(name):
    model = load_model(FOLDER / "models" / name)
    structure = Atoms(**json.loads((FOLDER / "models/structure.json").read_text()))
    (found,) = model.predict([structure])
    expected = json.loads((FOLDER / "models/predictions.json").read_text())
    assert_same_predictions(found, expected[model.settings.family])


def test_a_committee_predicts_what_it_did():
    committee = load_committee(FOLDER / "committee")
    (found,) = committee.predict([read(FOLDER / "committee/structure.xyz")])
    expected = json.loads((FOLDER / "committee/predictions.json").read_text())
    for member, values in zip(found.members, expected, strict=True):
        assert_same_predictions(member, values)


def test_a_stopped_run_is_finished(tmp_path, monkeypatch):
    shutil.copytree(FOLDER / "stopped_run", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    words = ["--conserve_charge", "none", "--charge_sign", "as_trained"]
    assert main(["train", "config.yaml", *words]) == 0
    log = (tmp_path / "logs/water_run-123.log").read_text()
    assert "Resuming from" in log
    assert "water_run-123_resume.safetensors: stage 'b' epoch 2, batch 1" in log
    expected = load_model_file("water_b_of_the_whole_run.model.safetensors")
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9),
        load_model_file("water_b.model.safetensors").parameters,
        expected.parameters,
    )


def test_preprocessed_structures_are_those_of_the_file():
    folder = FOLDER / "preprocessed"
    keys = KeySpecification.from_heads(
        yaml.safe_load((folder / "preprocess.yaml").read_text())["heads"]
    )
    stored = open_stored(folder, split="train")
    data = load_datasets(
        DataSettings(
            train_file=folder / "all.xyz",
            valid_file=folder / "valid.xyz",
            keys=keys,
            multipoles_max_l=1,
            override_pbc_checks=True,
            E0s={1: -13.0, 8: -430.0},
        )
    )
    assert len(stored) == 12
    assert stored.catalogue.content_digest() == data.train.catalogue.content_digest()
    cutoffs = {
        "cutoff": stored.description.cutoff,
        "kspace_cutoff": stored.description.kspace_cutoff,
    }
    found, expected = (
        BatchLoader(members.prepare(elements=(1, 8), **cutoffs), batch_size=5, shuffle=True)
        for members in (stored, data.train)
    )
    for one, other in zip(found.epoch(1), expected.epoch(1), strict=True):
        jax.tree.map(
            np.testing.assert_array_equal, with_sorted_edges(one), with_sorted_edges(other)
        )


def with_sorted_edges(graph):
    """The edges of each atom by sender and shift: their order was another before, and only time
    depends on it."""
    order = np.lexsort((*graph.cell_shifts.T, graph.senders, graph.receivers))
    names = ("senders", "receivers", "cell_shifts", "edge_mask")
    return graph.replace(**{name: getattr(graph, name)[order] for name in names})


@pytest.mark.slow
def test_a_simulation_goes_on(tmp_path, monkeypatch):
    for path in (FOLDER / "simulation").iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(FOLDER / "models/LocalCharges.model.safetensors", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    words = "--ensemble nvt --temperature 100 --timestep 0.2 --friction 10 --every 4 --steps 10"
    assert (
        main(["md", "model", "start.xyz", *shlex.split(words), "--output", "part.xyz", "--restart"])
        == 0
    )
    found, expected = read("part.xyz", ":"), read("whole.xyz", ":")
    assert [frame.info["step"] for frame in found] == [0, 4, 8, 10]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-7)
        np.testing.assert_allclose(one.get_momenta(), other.get_momenta(), atol=1e-7)
