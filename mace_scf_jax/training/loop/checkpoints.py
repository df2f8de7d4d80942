"""Checkpoints: the whole state of a run to resume from, and the best parameters of each stage.

A checkpoint is one safetensors file in the envelope of `mace_scf_jax.files`: arrays by name, and a
record in the header.

    <tag>_resume.safetensors              state after the last saved step
    <tag>_resume_previous.safetensors     the one before, used if the first cannot be read
    <tag>_<stage>_epoch-<N>.safetensors   best parameters of a stage

Why not orbax: for states of 300 arrays (2 to 48 MB) on a two-core CPU an orbax save takes
0.25-0.4 s on threads that compete with training and spreads over 16-21 files; one safetensors file
takes 0.01-0.1 s including the flush. Orbax pays off for arrays sharded over many hosts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from mace_scf_jax.files import Format
from mace_scf_jax.training.loop.state import Progress, TrainingState
from mace_scf_jax.training.optimise.parameter_groups import Parameters, parameter_name

SUFFIX = ".safetensors"

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint does not fit this run."""


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint file is truncated, damaged or of another kind."""


class UnwritableCheckpointError(CheckpointError):
    """A checkpoint cannot be written, because the disk is full for example."""


CHECKPOINT = Format(
    name="mace-scf-jax checkpoint",
    noun="checkpoint",
    version=2,
    sha256_since=2,
    error=UnreadableCheckpointError,
)


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A saved state of a run, as read from a file."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    progress: Progress
    fingerprint: Mapping[str, Any]
    """Settings and data that the run was started with."""

    def state(self, template: TrainingState) -> TrainingState:
        """The arrays of the run.

        Args:
            template: a state of the same run, for names, shapes and dtypes.

        Raises:
            CheckpointError: the file holds other arrays.
        """
        return _restore(self.path, self.arrays, template)


class CheckpointStore:
    """The checkpoint files of one run in one directory.

    Args:
        directory: where the files go; made if need be.
        tag: start of all file names, ``<name>_run-<seed>``.
        writes: False for all but one of the processes of a run: they read only.
    """

    def __init__(self, directory: Path | str, tag: str, *, writes: bool = True):
        self.directory = Path(directory)
        self.tag = tag
        self.writes = writes
        self.directory.mkdir(parents=True, exist_ok=True)
        self.latest = self.directory / f"{tag}_resume{SUFFIX}"
        self.previous = self.directory / f"{tag}_resume_previous{SUFFIX}"

    def save(
        self, state: TrainingState, progress: Progress, fingerprint: Mapping[str, Any]
    ) -> None:
        """Save the whole state of the run; the last saved one becomes the previous one.

        Args:
            state: arrays.
            progress: where the run stands.
            fingerprint: settings and data of the run, to compare with on resuming.

        Raises:
            UnwritableCheckpointError: nothing was written, and what was saved before is intact.
        """
        if not self.writes:
            return
        record = {"progress": progress.to_json(), "fingerprint": dict(fingerprint)}
        _write(self.latest, state, record, keep=self.previous)

    def newest(self) -> SavedRun | None:
        """The newest readable saved state, or None if there is none at all.

        A damaged newest file is reported as a warning and the previous one used.

        Raises:
            UnreadableCheckpointError: there are state files, but none can be read.
        """
        problems = []
        for path in (self.latest, self.previous):
            if not path.exists():
                continue
            try:
                arrays, record = read_checkpoint(path)
            except UnreadableCheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logger.warning("%s; resuming from the previous one, %s", problem, path.name)
            progress = Progress.from_json(record["progress"])
            return SavedRun(path, arrays, progress, record["fingerprint"])
        if problems:
            raise UnreadableCheckpointError(
                "; ".join(problems) + ". To start anew, use --no-restart_latest"
            )
        return None

    def discard(self) -> None:
        """Remove the files to resume from, so that a run starting anew is not mixed with them."""
        if self.writes:
            for path in (self.latest, self.previous):
                path.unlink(missing_ok=True)

    def save_best(
        self, stage: str, epoch: int, parameters: Parameters, record: Mapping[str, Any]
    ) -> str:
        """Save the parameters of one evaluation.

        Args:
            stage: name of the stage.
            epoch: epoch of the evaluation.
            parameters: the parameters that were evaluated.
            record: what else to note (validation loss, ...).

        Returns:
            The name of the file.

        Raises:
            UnwritableCheckpointError: nothing was written.
        """
        path = self.directory / f"{self.tag}_{stage}_epoch-{epoch}{SUFFIX}"
        if self.writes:
            _write(path, parameters, {"epoch": epoch, **record})
        return path.name

    def load_best(self, file: str, template: Parameters) -> tuple[Parameters, Mapping[str, Any]]:
        """Parameters and record written by :meth:`save_best`.

        Args:
            file: name of the file.
            template: parameters of the same model.

        Raises:
            CheckpointError: the file is missing, damaged, or holds other parameters.
        """
        path = self.directory / file
        arrays, record = read_checkpoint(path)
        return _restore(path, arrays, template), record

    def remove(self, files: tuple[str, ...]) -> None:
        """Remove files of earlier best parameters."""
        if self.writes:
            for file in files:
                (self.directory / file).unlink(missing_ok=True)


def check_fingerprint(
    saved: Mapping[str, Any], present: Mapping[str, Any], *, path: Path | str
) -> None:
    """Refuse to resume a run with other settings or data than it was started with.

    Args:
        saved: fingerprint in the checkpoint (JSON values).
        present: fingerprint of this run.
        path: the checkpoint, for the message.

    Raises:
        CheckpointError: names every setting that differs, with both values.
    """
    then, now = _flattened(saved), _flattened(json.loads(json.dumps(present)))
    differing = [
        f"{key}: {then.get(key, 'absent')} then, {now.get(key, 'absent')} now"
        for key in dict.fromkeys([*then, *now])
        if key not in _HOW_SUMMED and not _is_same(then.get(key, _ABSENT), now.get(key, _ABSENT))
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to a run with other settings or data: {'; '.join(differing)}. "
            "Restore them to resume, choose another name, or use --no-restart_latest to start anew"
        )


def read_checkpoint(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name and the record of a checkpoint file.

    Raises:
        UnreadableCheckpointError: missing, truncated, damaged, no checkpoint, or a newer format.
    """
    content = CHECKPOINT.read(path)
    return content.arrays, content.entries["record"]


def _is_same(then: Any, now: Any) -> bool:
    """Whether values are equal, numbers up to the rounding of another version of NumPy."""
    if isinstance(then, float) and isinstance(now, float):
        return math.isclose(then, now, rel_tol=ROUNDING)
    return then == now


ROUNDING = 1e-12
"""Relative difference of numbers that were measured on the same data."""
_ABSENT = object()

_HOW_SUMMED = frozenset(
    f"model.electrostatics.{name}" for name in ("sums", "mesh_accuracy", "method", "mesh")
)
"""Settings, also of earlier versions, that change how a number is computed, not the number."""


def _write(path: Path, tree: Any, record: Mapping[str, Any], *, keep: Path | None = None) -> None:
    """Write a checkpoint; that which was there before is kept under another name if so asked."""
    arrays = {
        parameter_name(key): value
        for key, value in jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    }
    try:
        CHECKPOINT.write(path, arrays, {"record": record}, keep=keep)
    except (OSError, safetensors.SafetensorError) as error:
        raise UnwritableCheckpointError(
            f"cannot write checkpoint {path}: {error}. Training stopped; what was saved before is "
            "kept. Make room on the disk and start the run again to go on from there"
        ) from error


def _restore(path: Path, arrays: Mapping[str, np.ndarray], template: Any) -> Any:
    """The tree of ``template`` with the values of a file."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {parameter_name(key): leaf for key, leaf in leaves}
    different = sorted(set(expected) ^ set(arrays))
    if different:
        where = "this run" if different[0] in expected else "the file"
        raise CheckpointError(
            f"{path} does not hold the arrays of this run: '{different[0]}' is only in {where}"
        )
    for name, leaf in expected.items():
        found = (arrays[name].shape, arrays[name].dtype)
        if found != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{path}: '{name}' has shape {found[0]} and dtype {found[1]}, expected "
                f"{leaf.shape} and {leaf.dtype}"
            )
    return structure.unflatten([jnp.array(arrays[name], copy=True) for name in expected])


def _flattened(values: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping from dotted names to values."""
    if isinstance(values, Mapping) and values:
        items = list(values.items())
    elif isinstance(values, list) and values:
        items = list(enumerate(values))
    else:
        return {name: values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flattened(value, f"{name}.{key}" if name else str(key)))
    return flat
