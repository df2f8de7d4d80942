"""Training a committee: the same model several times on one split, each time with another seed."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from mace_scf_jax import __version__, runtime
from mace_scf_jax.data.datasets import load_datasets
from mace_scf_jax.models.model_file import ModelFileError, load_model_file
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.predict.committee import (
    COMMITTEE_FILE,
    CommitteeFile,
    DataDigests,
    MemberEntry,
    read_committee_file,
)
from mace_scf_jax.training.config.options import TrainOptions, options_from
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.records.reporting import ConsoleHandler, logging_to
from mace_scf_jax.training.records.run_files import RunFiles, make_folder
from mace_scf_jax.training.run import train
from mace_scf_jax.training.settings import data_settings

FOLDERS = ("log_dir", "checkpoints_dir", "results_dir", "model_dir")
"""Options that name folders of a run, besides ``work_dir``."""


SHARE_OF_GPU_MEMORY = 0.75
"""What JAX reserves by default for one process; several have to divide it."""


class CommitteeTrainingError(ValueError):
    """Members of a committee could not be trained; the others are finished."""


def train_committee(
    config: TrainOptions | Mapping[str, Any] | str | Path, *, size: int, parallel: int = 1
) -> CommitteeFile:
    """Train the members of a committee that are not finished yet.

    Member k has the seed ``options.seed + k - 1`` and puts its files into the folder
    ``member-<k>`` of every folder that the options name, so that the first member equals the run
    without a committee. All members share the split of ``options.split_seed``. With the option
    ``dry_run`` the first member is checked, and nothing is written.
    ``<work_dir>/committee.json`` tells what is finished. A member that fails does not stop the
    others.

    Args:
        config: options of the run; a mapping of values or the path of a YAML file will do.
        size: number of members.
        parallel: members trained at the same time, each in a process of its own; 1: one after the
            other in this process.

    Returns:
        What ``committee.json`` holds.

    Raises:
        ConfigurationError: a number is below 1, several processes are asked for, or the folder
            cannot be written to or holds a committee of other data.
        DataError: files or their contents cannot be used; nothing has been written then.
        CommitteeFileError: ``committee.json`` of an earlier run is damaged.
        CommitteeTrainingError: members failed; tells which and why.
    """
    options = options_from(config)
    for name, number in (("committee", size), ("committee_parallel", parallel)):
        if number < 1:
            raise ConfigurationError(f"option '{name}': expected at least 1, found {number}")
    if options.distributed:
        raise ConfigurationError(
            "option 'distributed': not for committees; start a run for each member, which needs "
            "only its own 'seed' and 'work_dir' and the 'split_seed' of all"
        )
    committee = CommitteeFile(
        version=__version__,
        name=options.name,
        size=size,
        split_seed=options.split_seed,
        data=_digests(options),
    )
    if options.dry_run:
        train(member_options(options, 1))
        return committee
    finished = _finished_earlier(options, committee)
    _tell(options, _plan(finished, size, options))
    make_folder("work_dir", options.work_dir)
    committee = _with_members(committee, finished)
    committee.write(options.work_dir)
    waiting = {number: member_options(options, number) for number in committee.missing()}
    if parallel > 1 and waiting:
        logs = ", ".join(str(RunFiles.of(member).log) for member in waiting.values())
        _tell(options, f"At most {parallel} members at the same time; what they say is in {logs}")
    trained = _in_processes(waiting, parallel) if parallel > 1 else _in_sequence(waiting)
    failures: dict[int, str] = {}
    for number, failure in trained:
        if failure is not None:
            failures[number] = failure
            _tell(options, f"Member {number} failed: {failure}", level=logging.ERROR)
            continue
        entry = _entry(options, number)
        committee = _with_members(committee, [*committee.members, entry])
        committee.write(options.work_dir)
        _tell(options, f"Member {number} is finished: {', '.join(entry.models.values())}")
    if failures:
        raise CommitteeTrainingError(
            f"{len(failures)} of {size} members could not be trained; the others are finished. "
            + "; ".join(f"member {number}: {text}" for number, text in sorted(failures.items()))
        )
    return committee


def member_options(options: TrainOptions, number: int) -> TrainOptions:
    """The options of one member, counted from 1.

    Args:
        options: of the committee.
        number: of the member.
    """
    folder = f"member-{number}"
    given = {name: getattr(options, name) for name in FOLDERS if getattr(options, name) is not None}
    return options.model_copy(
        update={
            "seed": options.seed + number - 1,
            "valid_set_seed": options.split_seed,
            "work_dir": options.work_dir / folder,
            **{name: path / folder for name, path in given.items()},
        }
    )


def _in_sequence(waiting: dict[int, TrainOptions]) -> Iterator[tuple[int, str | None]]:
    """Train one member after the other; yields the number of each, and why it failed."""
    programs = Programs()
    for number, options in waiting.items():
        try:
            train(options, programs=programs)
        except (ValueError, OSError) as error:
            yield number, str(error)
        else:
            yield number, None


def _in_processes(
    runs: Mapping[int, TrainOptions], parallel: int
) -> Iterator[tuple[int, str | None]]:
    """Train several runs, some at the same time; what they say goes to their log files only.

    Processes still at work are ended when the iteration is; their runs can be resumed.

    Args:
        runs: options by number.
        parallel: most runs at the same time.

    Yields:
        The number of each run when it is over, and why it failed; None: it did not.
    """
    context = multiprocessing.get_context("spawn")  # not "fork", which JAX's threads do not survive
    waiting = list(reversed(runs.items()))
    running: dict[int, tuple[int, BaseProcess, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                number, options = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_train_alone, args=(options, parallel, sender), daemon=True
                )
                process.start()
                sender.close()
                running[process.sentinel] = (number, process, receiver)
            for sentinel in wait(list(running)):
                number, process, receiver = running.pop(sentinel)
                process.join()
                yield number, _outcome(process, receiver)
    finally:
        for _, process, receiver in running.values():
            process.terminate()
            process.join()
            receiver.close()


def _train_alone(options: TrainOptions, parallel: int, sender: Connection) -> None:
    """What a process does: one run, quietly; sends why it failed, or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{SHARE_OF_GPU_MEMORY / parallel:.3f}")
    runtime.prepare_command()
    failure = None
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            train(options)
    except (ValueError, OSError) as error:
        failure = str(error)
    sender.send(failure)
    sender.close()


def _outcome(process: BaseProcess, receiver: Connection) -> str | None:
    """Why a process that is over failed; None: it did not."""
    with receiver:
        try:
            return receiver.recv()
        except EOFError:
            return (
                f"its process ended unexpectedly with exit status {process.exitcode}, perhaps for "
                "lack of memory; fewer members at the same time need less"
            )


def _digests(options: TrainOptions) -> DataDigests:
    """What identifies the data of all members; they are read and checked for it."""
    with logging_to({ConsoleHandler(Console(stderr=True)): logging.WARNING}):
        data = load_datasets(data_settings(options))
    return DataDigests(
        training=data.train.catalogue.content_digest(),
        validation=data.valid.catalogue.content_digest(),
    )


def _finished_earlier(options: TrainOptions, committee: CommitteeFile) -> list[MemberEntry]:
    """Members that an earlier call with these options has finished.

    Raises:
        ConfigurationError: they were trained on other data.
    """
    if not (options.restart_latest and (options.work_dir / COMMITTEE_FILE).exists()):
        return []
    earlier = read_committee_file(options.work_dir)
    if earlier.members and earlier.data != committee.data:
        raise ConfigurationError(
            f"{options.work_dir / COMMITTEE_FILE}: this committee was trained on other training or "
            "validation data; choose another work_dir, or train all members again with "
            "restart_latest: false"
        )
    return [
        entry
        for entry in earlier.members
        if entry.number <= committee.size and _is_finished(entry, options)
    ]


def _is_finished(entry: MemberEntry, options: TrainOptions) -> bool:
    """Whether the model files of a member are there and of exactly these options."""
    wanted = json.loads(member_options(options, entry.number).model_dump_json())
    if entry != _entry(options, entry.number):
        return False
    paths = [options.work_dir / path for path in entry.models.values()]
    try:
        records = [load_model_file(path).record for path in paths]
    except ModelFileError:
        return False
    return all(record.get("training_options") == wanted for record in records)


def _entry(options: TrainOptions, number: int) -> MemberEntry:
    """What is written about a finished member."""
    member = member_options(options, number)
    files = RunFiles.of(member)
    top = options.work_dir.resolve()
    return MemberEntry(
        number=number,
        seed=member.seed,
        models={
            stage.name: _relative(files.model(stage.name).resolve(), top)
            for stage in options.train_schedule
        },
    )


def _relative(path: Path, folder: Path) -> str:
    """The path seen from a folder, so that both may be moved together."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _with_members(committee: CommitteeFile, members: Sequence[MemberEntry]) -> CommitteeFile:
    ordered = tuple(sorted(members, key=lambda entry: entry.number))
    return committee.model_copy(update={"members": ordered})


def _plan(finished: Sequence[MemberEntry], size: int, options: TrainOptions) -> str:
    """What is going to happen, for the terminal."""
    done = ", ".join(str(entry.number) for entry in finished) or "none"
    seeds = f"{options.seed} to {options.seed + size - 1}"
    return (
        f"Committee of {size} with seeds {seeds} and split seed {options.split_seed}; "
        f"already finished: {done}"
    )


def _tell(options: TrainOptions, text: str, *, level: int = logging.INFO) -> None:
    """A line on the terminal, between those of the members."""
    with logging_to({ConsoleHandler(Console(stderr=True)): options.log_level}):
        logging.getLogger(__name__).log(level, "%s", text)
