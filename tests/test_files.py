"""Files are written whole or not at all, whatever they hold, and damaged ones are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from mace_scf_jax.files import Format, write_whole

NOTES = Format(name="mace-scf-jax notes", noun="file of notes", version=3, sha256_since=2)
ENTRIES = {"text": "Å, é", "numbers": [1, 2.5, None], "nested": {"a": {"b": True}}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("before")
    with write_whole(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_interrupted_leaves_nothing(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("before")

    def write_half():
        with write_whole(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["notes.txt"]


def test_the_file_before_may_be_kept(tmp_path):
    path, kept = tmp_path / "notes.txt", tmp_path / "before.txt"
    for text in ("first", "second", "third"):
        with write_whole(path, keep=kept) as partial:
            partial.write_text(text)
    assert (path.read_text(), kept.read_text()) == ("third", "second")


def test_files_and_names_reach_the_disk_in_order(tmp_path, monkeypatch):
    """Content before the name, the name before the end."""
    events, replace, fsync = [], os.replace, os.fsync
    path = tmp_path / "notes.txt"

    def seen(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renamed(source, target):
        events.append("renamed")
        replace(source, target)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("names of open files are known on Linux only")
    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(os, "replace", renamed)
    with write_whole(path) as partial:
        partial.write_text("after")
    assert events == [str(partial), "renamed", str(tmp_path)]


def test_arrays_and_entries_come_back(tmp_path):
    arrays = {"scalar": np.array(3), "turned": np.arange(6.0).reshape(2, 3).T, "none": np.zeros(0)}
    NOTES.write(tmp_path / "a.safetensors", arrays, ENTRIES)
    found = NOTES.read(tmp_path / "a.safetensors")
    assert found.entries == ENTRIES
    assert found.arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values, strict=True)


def test_json_comes_back_and_tells_changes(tmp_path):
    path = tmp_path / "notes.json"
    NOTES.write_json(path, ENTRIES)
    assert NOTES.read_json(path) == ENTRIES
    content = json.loads(path.read_text())
    assert content["format_version"] == 3
    for changed, message in (
        (content | {"text": "other"}, "damaged file, its contents do not match their checksum"),
        (content | {"format": "other"}, "expected a file of notes of mace-scf-jax, found a file w"),
        (content | {"format_version": 4}, "written in format version 4, .* reads up to 3"),
        (content | {"format_version": "x"}, "no readable 'format_version' in its header"),
        ([], "found a file with the format None"),
        ("text", "not a complete file of notes"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            NOTES.read_json(path)


def test_only_files_from_before_checksums_lack_them(tmp_path):
    path = tmp_path / "notes.json"
    content = {"format": NOTES.name, **ENTRIES}
    path.write_text(json.dumps(content | {"format_version": 1}))
    assert NOTES.read_json(path) == ENTRIES
    path.write_text(json.dumps(content | {"format_version": 2}))
    with pytest.raises(ValueError, match="checksum"):
        NOTES.read_json(path)


def test_entries_that_are_no_json_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        NOTES.write(tmp_path / "notes", {}, {"array": np.zeros(2)})
    with pytest.raises(TypeError, match="not JSON serializable"):
        NOTES.write_json(tmp_path / "notes", {"array": np.zeros(2)})
    assert names(tmp_path) == []
