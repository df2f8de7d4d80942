"""Model files: exact round trip, and one clear error for every file that cannot be used."""

from __future__ import annotations

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from mace_scf_jax.models.model_file import ModelFileError, load_model_file, save_model


@dataclasses.dataclass(frozen=True)
class Settings:
    family: str = "LocalCharges"
    widths: tuple[int, ...] = (4, 4)

    def to_dict(self):
        return dataclasses.asdict(self)


RECORD = {"heads": {"DFT": {"info_keys": {"energy": "REF_energy"}}}, "note": "Å, é", "epoch": 3}


def parameters(dtype=np.float64):
    rng = np.random.default_rng(0)
    return {
        "backbone": {
            "embedding": {"weight": rng.normal(size=(2, 3)).astype(dtype)},
            "interaction_0": {"linear": {"degree_0": rng.normal(size=(3, 3)).astype(dtype).T}},
        },
        "readout": {"bias": rng.normal(size=(1,)).astype(dtype), "none": np.zeros((0, 2), dtype)},
    }


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "small.model"
    save_model(target, parameters(), Settings(), RECORD)
    return target


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_round_trip_is_exact(tmp_path, dtype):
    path = tmp_path / "round.model"
    save_model(path, jax.tree.map(jax.numpy.asarray, parameters(dtype)), Settings(), RECORD)
    content = load_model_file(path)
    assert content.settings == {"family": "LocalCharges", "widths": [4, 4]}
    assert content.record == RECORD
    expected = parameters(dtype)
    assert jax.tree.structure(content.parameters) == jax.tree.structure(expected)
    for found, wanted in zip(
        jax.tree.leaves(content.parameters), jax.tree.leaves(expected), strict=True
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)


def test_the_file_is_safetensors_with_a_readable_header(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        assert "backbone/interaction_0/linear/degree_0" in file.keys()  # noqa: SIM118
        metadata = file.metadata()
    assert metadata["format"] == "mace-scf-jax model"
    assert metadata["format_version"] == "1"
    assert json.loads(metadata["settings"])["family"] == "LocalCharges"


def test_the_checksum_names_the_contents(path, tmp_path):
    checksum = load_model_file(path).checksum
    assert len(bytes.fromhex(checksum)) == 32
    copy = tmp_path / "copy.model"
    save_model(copy, parameters(), Settings(), RECORD)
    assert load_model_file(copy).checksum == checksum
    save_model(copy, parameters(), Settings(), {**RECORD, "epoch": 4})
    assert load_model_file(copy).checksum != checksum


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.model: no such model file"):
        load_model_file(tmp_path / "none.model")
    with pytest.raises(ModelFileError, match="no such model file"):
        load_model_file(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"small\.model: not a complete model file"):
        load_model_file(path)


def test_a_damaged_weight(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"small\.model: damaged file, .* checksum"):
        load_model_file(path)


def with_metadata(path, **changes):
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = {name: value for name, value in (metadata | changes).items() if value is not None}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))


@pytest.mark.parametrize("name", ["settings", "record"])
def test_altered_header(path, name):
    with_metadata(path, **{name: "{}"})
    with pytest.raises(ModelFileError, match=r"small\.model: damaged file, .* checksum"):
        load_model_file(path)


def test_a_newer_version(path):
    with_metadata(path, format_version="2")
    with pytest.raises(ModelFileError, match=r"format version 2, .* reads up to 1; please upgrade"):
        load_model_file(path)


@pytest.mark.parametrize("missing", ["format_version", "settings", "record", "sha256"])
def test_incomplete_metadata(path, missing):
    with_metadata(path, **{missing: None})
    with pytest.raises(ModelFileError, match=r"small\.model: damaged file"):
        load_model_file(path)


@pytest.mark.parametrize(
    ("name", "value"), [("format_version", "two"), ("settings", "{"), ("record", "nothing")]
)
def test_unreadable_metadata(path, name, value):
    with_metadata(path, **{name: value})
    with pytest.raises(ModelFileError, match=f"no readable '{name}' in its header"):
        load_model_file(path)


def test_another_safetensors_file(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ModelFileError, match=r"expected a model file .* with the format None"):
        load_model_file(path)


def test_a_failure_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_model(path, parameters(), Settings(family="MACE"), {})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["small.model"]


def test_data_that_is_no_json_is_refused_before_anything_is_written(path):
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(path, parameters(), Settings(), {"array": np.zeros(2)})
    assert path.read_bytes() == before


def test_a_new_file_replaces_the_old_one_with_usual_permissions(path):
    save_model(path, parameters(), Settings(family="MACE"), {})
    assert load_model_file(path).settings["family"] == "MACE"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
