"""Several training runs at the same time, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mace_scf_jax import runtime
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.run import train

SHARE_OF_GPU_MEMORY = 0.75
"""What JAX reserves by default for one process; several have to divide it."""


def train_in_processes(
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
