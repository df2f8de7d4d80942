import contextlib
import errno
import json
import math
import os
import resource
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_system import tiny_model

from mace_scf_jax.training.loop.checkpoints import (
    CheckpointError,
    CheckpointStore,
    UnreadableCheckpointError,
    UnwritableCheckpointError,
    check_fingerprint,
    read_checkpoint,
)
from mace_scf_jax.training.loop.state import Progress, initial_state
from mace_scf_jax.training.optimise.learning_rates import LearningRateState
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings

PROGRESS = Progress(
    LearningRateState({"embedding": 0.1 + 0.2}, best_loss=math.inf, epochs_without_improvement=2),
    stage=1,
    epoch=12,
    batch=3,
    validation_loss=1.0 / 3.0,
    kept={"first": "a.safetensors"},
    superseded=("b.safetensors",),
)


@pytest.fixture(params=["adam", "schedulefree"])
def state(request):
    """A state with distinct values in all leaves."""
    state = initial_state(
        tiny_model(), OptimiserSettings(optimizer=request.param, ema=True, ema_decay=0.9)
    )
    leaves, structure = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    return structure.unflatten(
        [jnp.asarray(rng.uniform(1, 9, size=leaf.shape).astype(leaf.dtype)) for leaf in leaves]
    )


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "new" / "folder", "water_run-1")


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def test_states_come_back_exactly(store, state):
    store.save(state, PROGRESS, {"r_max": 5.0})
    saved = store.newest()
    assert saved.progress == PROGRESS
    assert saved.fingerprint == {"r_max": 5.0}
    found = saved.state(jax.tree.map(jnp.zeros_like, state))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, state)


def test_files_have_the_permissions_that_the_user_wants(store, state):
    before = os.umask(0o027)
    try:
        store.save(state, PROGRESS, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.latest.stat().st_mode) == 0o640


def test_two_states_are_kept(store, state):
    assert store.newest() is None
    for epoch in range(3):
        store.save(state, PROGRESS.replace(epoch=epoch), {})
    assert names(store) == [
        "water_run-1_resume.safetensors",
        "water_run-1_resume_previous.safetensors",
    ]
    assert store.newest().progress.epoch == 2
    store.latest.unlink()
    assert store.newest().progress.epoch == 1
    store.discard()
    assert store.newest() is None


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = b""
    else:
        content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit flipped"])
def test_damaged_files_are_noticed(store, state, caplog, how):
    for epoch in range(2):
        store.save(state, PROGRESS.replace(epoch=epoch), {})
    damage(store.latest, how)
    assert store.newest().progress.epoch == 0
    assert "water_run-1_resume.safetensors" in caplog.text
    assert "resuming from the previous one, water_run-1_resume_previous.safetensors" in caplog.text
    damage(store.previous, how)
    with pytest.raises(UnreadableCheckpointError, match="use --no-restart_latest"):
        store.newest()


def test_a_write_that_was_cut_short_changes_nothing(store, state):
    store.save(state, PROGRESS, {})
    store.latest.with_name(f".{store.latest.name}.partial").write_bytes(b"half a file")
    assert store.newest().progress == PROGRESS
    store.save(state, PROGRESS, {})
    assert not [name for name in names(store) if "partial" in name]


@contextlib.contextmanager
def full_disk(largest_file):
    """The operating system refuses to write files beyond a size in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("largest_file", [0, 100])
def test_a_full_disk_changes_nothing(store, state, largest_file):
    store.save(state, PROGRESS, {})
    before = names(store)
    message = r"cannot write checkpoint .*File too large.*what was saved before is kept"
    with full_disk(largest_file):
        with pytest.raises(UnwritableCheckpointError, match=message):
            store.save(state, PROGRESS.replace(epoch=13), {})
        with pytest.raises(UnwritableCheckpointError, match=message):
            store.save_best("first", 13, state.parameters, {})
    assert names(store) == before
    assert store.newest().progress == PROGRESS
    store.save(state, PROGRESS.replace(epoch=13), {})
    assert store.newest().progress.epoch == 13


def test_a_flush_that_fails_is_a_full_disk_too(store, state, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    store.save(state, PROGRESS, {})
    before = names(store)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(UnwritableCheckpointError, match="No space left on device"):
            store.save(state, PROGRESS.replace(epoch=13), {})
    assert names(store) == before
    assert store.newest().progress == PROGRESS


def test_best_parameters(store):
    parameters = tiny_model()
    file = store.save_best("first", 7, parameters, {"loss": 0.25})
    assert file == "water_run-1_first_epoch-7.safetensors"
    found, record = store.load_best(file, jax.tree.map(jnp.zeros_like, parameters))
    assert record == {"epoch": 7, "loss": 0.25}
    jax.tree.map(np.testing.assert_array_equal, found, parameters)
    store.remove((file, "never_there.safetensors"))
    assert names(store) == []
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        store.load_best(file, parameters)


def test_parameters_of_another_model_are_refused(store):
    file = store.save_best("first", 0, {"a": jnp.zeros(2), "b": jnp.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="'c' is only in this run"):
        store.load_best(file, {"a": jnp.zeros(2), "b": jnp.zeros(3), "c": jnp.zeros(1)})
    with pytest.raises(CheckpointError, match="'b' is only in the file"):
        store.load_best(file, {"a": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match=r"'b' has shape \(3,\) and dtype float64, expected"):
        store.load_best(file, {"a": jnp.zeros(2), "b": jnp.zeros(4)})
    with pytest.raises(CheckpointError, match=r"'a' has shape .* expected .* float32"):
        store.load_best(file, {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(3)})


def test_other_files_are_refused(tmp_path):
    foreign = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(2)}, foreign)
    with pytest.raises(UnreadableCheckpointError, match="expected a checkpoint of mace-scf-jax"):
        read_checkpoint(foreign)
    newer = {"format": "mace-scf-jax checkpoint", "version": "99", "record": "{}", "checksum": "0"}
    save_file({"a": np.zeros(2)}, foreign, metadata=newer)
    with pytest.raises(UnreadableCheckpointError, match=r"format version 99, .* reads up to 2"):
        read_checkpoint(foreign)


def test_fingerprints_are_compared_as_json():
    saved = json.loads(json.dumps({"sizes": (1, 2), "nested": {"x": 0.1}, "empty": {}}))
    check_fingerprint(saved, {"nested": {"x": 0.1}, "empty": {}, "sizes": [1, 2]}, path="f")
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint(saved, {"sizes": (1, 3), "nested": {"y": 1}, "empty": {}}, path="f")
    for text in ("sizes.1: 2 then, 3 now", "nested.x: 0.1 then, absent now", "nested.y: absent"):
        assert text in str(caught.value)


def test_numbers_measured_with_another_numpy_are_those_of_the_same_run():
    before = {"atomic_energies": [-800.8, -400.4]}
    check_fingerprint(before, {"atomic_energies": [-800.7999999999998, -400.4]}, path="a")
    with pytest.raises(CheckpointError, match=r"atomic_energies\.0: -800.8 then, -800.7 now"):
        check_fingerprint(before, {"atomic_energies": [-800.7, -400.4]}, path="a")
