"""Replay: structures of the start model beside those of the user, as a head of their own."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from start_models import ENERGIES, STAGE, options, structures, write_start

from mace_scf_jax import load_model
from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.run import train
from mace_scf_jax.training.settings import data_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Beside a start model and its training file, structures with and without labels."""
    folder = tmp_path_factory.mktemp("replay")
    write_start(folder)
    labelled = ase.io.read(folder / "train.xyz", ":")
    for atoms in labelled:
        atoms.rattle(0.05, seed=3)
        atoms.info["other_energy"] = -1.0
    ase.io.write(folder / "labelled.xyz", labelled, format="extxyz")
    ase.io.write(folder / "unlabelled.xyz", structures(9), format="extxyz")
    return folder


def given(folder, file="labelled.xyz", **replay):
    return TrainOptions(**options(folder, replay={"file": str(folder / file)} | replay))


def loaded(folder, *arguments, **replay):
    data = load_datasets(data_settings(given(folder, *arguments, **replay)))
    everything = [*data.train, *data.valid]
    return data, [entry for entry in everything if entry.head == 1]


def test_the_head_of_replay(folder):
    """Keys are those of the user, or given; the weight is on every label."""
    same, other = given(folder), given(folder, keys={"energy": "other_energy"}, weight=0.5)
    assert list(same.all_heads) == ["Default", "replay"]
    assert same.keys.heads[1].keys.key_of("forces") == "REF_forces"
    assert [head.E0s for head in same.keys.heads] == [None, "start"]
    assert other.keys.heads[1].keys.key_of("energy") == "other_energy"
    assert other.keys.heads[1].loss_weights == {"energy": 0.5}
    # what is written in model files is read again to the same
    assert TrainOptions(**other.model_dump()).all_heads == other.all_heads


def test_structures_are_added_to_those_of_the_user(folder):
    """A part is validated on; the validation structures of the user are the same as without."""
    without = load_datasets(data_settings(TrainOptions(**options(folder))))
    data, replayed = loaded(folder, samples=4)
    assert data.valid_indices == without.valid_indices
    assert len(replayed) == 4
    assert data.heads == ("Default", "replay")
    assert sorted(data.tests) == ["valid_Default", "valid_replay"]
    np.testing.assert_allclose(data.atomic_energies[1], [ENERGIES[1], ENERGIES[8]])
    again = loaded(folder, samples=4)[1]
    assert [entry.location for entry in again] == [entry.location for entry in replayed]


def test_the_start_model_labels(folder):
    _, replayed = loaded(folder, "unlabelled.xyz", labels="start", keys={})
    start = load_model(folder / "start.model.safetensors")
    by_place = sorted(replayed, key=lambda entry: entry.location.index)
    for entry, expected in zip(by_place, start.predict(structures(9)), strict=True):
        # positions in the file have eight digits
        np.testing.assert_allclose(entry.values["energy"], expected["energy"], rtol=1e-8)
        np.testing.assert_allclose(entry.values["forces"], expected["forces"], atol=1e-5)


def test_stresses_are_labelled_too(folder, tmp_path):
    atoms = ase.Atoms("H2O2", [[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [1, 1.5, 0]], pbc=True)
    atoms.set_cell([4.0, 4.0, 4.0])
    ase.io.write(tmp_path / "periodic.xyz", [atoms] * 2, format="extxyz")
    replay = {"file": str(tmp_path / "periodic.xyz"), "labels": "start"}
    given = TrainOptions(**options(folder, replay=replay, compute_stress=True))
    data = load_datasets(data_settings(given))
    (found,) = (entry for entry in data.train if entry.head == 1)
    start = load_model(folder / "start.model.safetensors")
    (expected,) = start.predict([atoms], stress=True)
    np.testing.assert_allclose(found.values["stress"], expected["stress"], atol=1e-9)
    assert np.abs(expected["stress"]).max() > 1e-4


def test_errors_before_and_after_are_in_the_table(folder, tmp_path):
    """Structures that name no head have that of the user, which knows elements of replay too."""
    methane = [molecule("CH4") for _ in range(3)]
    for seed, atoms in enumerate(methane):
        atoms.rattle(0.1, seed=seed)
    ase.io.write(tmp_path / "methane.xyz", methane, format="extxyz")
    result = train(
        options(folder, work_dir=str(tmp_path), train_schedule={0: STAGE | {"lr": 0.01}}),
        replay={"file": str(tmp_path / "methane.xyz"), "labels": "start"},
    )
    log = (tmp_path / "logs" / "fine_run-123.log").read_text()
    assert "Errors before the first step" in log
    assert "| valid_replay before " in log
    before, after = result.first_metrics, result.metrics["only"]
    assert before["valid_replay"]["rmse_f"] < 1e-6
    assert after["valid_replay"]["rmse_f"] > before["valid_replay"]["rmse_f"]
    model = load_model(result.models["only"])
    assert model.settings.heads == ("Default", "replay")
    assert model.settings.elements == (1, 6, 8)
    assert model.settings.atomic_energies[0][1] == ENERGIES[6]
    (atoms,) = structures(1)
    (found,), (own,) = model.predict([atoms]), model.using(head="Default").predict([atoms])
    assert found["energy"] == pytest.approx(float(own["energy"]), rel=1e-12)


@pytest.mark.parametrize(
    ("file", "replay", "message"),
    [
        ("unlabelled.xyz", {}, "found no configuration with the key 'REF_energy'.*labels: start"),
        ("labelled.xyz", {"samples": 7}, "samples: expected at most 6, the structures of"),
        ("labelled.xyz", {"keys": {"energie": "E"}}, "did you mean 'energy'"),
        ("none.xyz", {}, "none.xyz: no such file"),
    ],
)
def test_files_that_cannot_be_replayed_are_refused(folder, file, replay, message):
    with pytest.raises((DataError, ConfigurationError), match=message):
        loaded(folder, file, **replay)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": {}}, "replay: 'file' is required"),
        ({"replay": {"file": "a.xyz", "labels": "none"}}, "replay: labels: expected 'file' or"),
        ({"replay": {"file": "a.xyz", "weight": 0.0}}, "replay: weight: expected a number above 0"),
        (
            {"replay": {"file": "a.xyz"}, "start_from": None, "hidden_irreps": "2x0e"},
            "option 'replay': needs 'start_from'",
        ),
        (
            {
                "replay": {"file": "a.xyz"},
                "energy_key": None,
                "forces_key": None,
                "heads": {"replay": {"info_keys": {}, "arrays_keys": {}}},
            },
            "heads: found 'replay', the name of the head of the option 'replay'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder, changes, message):
    with pytest.raises(ConfigurationError) as error:
        TrainOptions(**options(folder, **changes))
    assert message in str(error.value)
