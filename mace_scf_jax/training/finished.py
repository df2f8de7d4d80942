"""Whether a run is over, told by what it has left behind: no data are read and nothing computed."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mace_scf_jax.models.model_file import ModelFileError, load_model_file
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.checkpoints import CheckpointError, CheckpointStore
from mace_scf_jax.training.loop.state import Progress
from mace_scf_jax.training.records.results_file import ResultsError, RunResults, read_results
from mace_scf_jax.training.records.run_files import RunFiles, RunOptions


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run that is over has left behind."""

    models: Mapping[str, Path]
    """Model file of each stage."""
    results: RunResults
    progress: Progress


def finished_run(options: TrainOptions, files: RunFiles) -> FinishedRun | None:
    """Return a run that was trained to its end with these options on these data; else None.

    The model files of all stages must name the same options, but for those that say where to
    compute and to put files, and be younger than the data.

    Args:
        options: of the run.
        files: where it puts what.
    """
    models = {stage.name: files.model(stage.name) for stage in options.train_schedule}
    if not (options.restart_latest and all(path.is_file() for path in models.values())):
        return None
    wanted = _told(json.loads(options.model_dump_json()))
    written = min(path.stat().st_mtime for path in models.values())
    try:
        records = [load_model_file(path).record for path in models.values()]
        saved = CheckpointStore(files.checkpoints, options.tag).newest()
        results = read_results(files.results)
    except (ModelFileError, CheckpointError, ResultsError):
        return None
    if (
        saved is None
        or not _is_over(saved.progress, options)
        or any(_told(record.get("training_options", {})) != wanted for record in records)
        or set(models) != set(results.final)
        or any(path.stat().st_mtime >= written for path in _data_files(options))
    ):
        return None
    return FinishedRun(models, results, saved.progress)


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, without those that say where a run computes and puts its files."""
    without = {*RunOptions.model_fields} - {*RunOptions.deciding_weights()}
    return {name: value for name, value in options.items() if name not in without}


def _is_over(progress: Progress, options: TrainOptions) -> bool:
    last = len(options.train_schedule) - 1
    return progress.stage == last and progress.stage_is_over(options.train_schedule[last].end)


def _data_files(options: TrainOptions) -> Iterator[Path]:
    """All files that the options name, those of folders and patterns too."""
    replayed = None if options.replay is None else options.replay.file
    files = (options.train_file, options.valid_file, options.test_file, options.E0s, replayed)
    for named in files:
        if not isinstance(named, str | Path):
            continue
        for found in map(Path, glob.glob(str(named)) or [str(named)]):
            yield from found.rglob("*") if found.is_dir() else [found] if found.exists() else []
