"""Data-parallel training: several devices share the work on every batch.

Each device holds all parameters and one part of the batch. It computes the share of its part in the
loss and in the gradient; the shares are summed over the devices, and all devices make the same
optimiser step. Losses are means, so that numbers of entries are summed over the devices before
anything is divided by them (`weighted_loss`): the result is that of one device, but for the order
of sums.

Functions are written for one part and one device. :meth:`Devices.jit` compiles them for all
devices; arguments and results are either the same on every device (`SAME`) or in parts along the
first axis of every array (`PARTS`). On one device nothing of this happens.

The devices may belong to several processes, on one or several hosts. Every process runs the same
program: it reads the same files and makes its own parts of each batch. Only the first writes files.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as Placement

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.predict.use import advice_on_device

AXIS = "devices"
SAME = Placement()
"""The same on every device."""
PARTS = Placement(AXIS)
"""One part on each device, along the first axis of every array."""

COORDINATOR, NUM_PROCESSES, PROCESS_ID = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
"""Environment variables that tell processes of each other where no job scheduler does."""


class Devices:
    """The devices that share the work on each batch.

    Args:
        devices: of all processes, equally many of each; none or one: the default device of JAX.
    """

    def __init__(self, devices: Sequence[jax.Device] = ()):
        several = len(devices) > 1
        self._devices = tuple(devices) if several else ()
        self._mesh = (
            Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)) if several else None
        )
        self.count = max(len(devices), 1)
        """Number of devices, and of parts of a batch."""
        mine = [
            number
            for number, device in enumerate(devices)
            if several and device.process_index == jax.process_index()
        ]
        self.own_parts = range(mine[0], mine[-1] + 1) if mine else range(1)
        """Numbers of the parts that are on devices of this process."""

    def __eq__(self, other: object) -> bool:
        """Whether functions compiled for the ones are functions for the others."""
        return isinstance(other, Devices) and self._devices == other._devices

    def __hash__(self) -> int:
        return hash(self._devices)

    def jit(
        self,
        function: Callable[..., Any],
        *,
        arguments: Sequence[Placement],
        results: Placement | Sequence[Placement],
        donate: tuple[int, ...] = (),
    ) -> Any:
        """Compile a function of one part of a batch for all devices.

        Args:
            function: sums over devices with :meth:`sum` where its result has to be the same on all.
            arguments: where each argument is, `SAME` or `PARTS`.
            results: where each result is.
            donate: positions of arguments whose memory the results may take over.
        """
        if self._mesh is None:
            return jax.jit(function, donate_argnums=donate)
        # Without tracking what varies over devices: models hold loops that start from constants.
        mapped = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=tuple(arguments),
            out_specs=results,
            check_vma=False,
        )
        shardings = tuple(NamedSharding(self._mesh, placement) for placement in arguments)
        return jax.jit(mapped, in_shardings=shardings, donate_argnums=donate)

    def sum(self, values: Any) -> Any:
        """Sum of arrays over all devices, within a function that is compiled by :meth:`jit`.

        Args:
            values: any tree of arrays.
        """
        return values if self._mesh is None else jax.lax.psum(values, AXIS)

    def max(self, values: Any) -> Any:
        """Largest of the values on each device, within a function compiled by :meth:`jit`.

        Args:
            values: any tree of arrays.
        """
        return values if self._mesh is None else jax.lax.pmax(values, AXIS)

    def put(self, parts: Any) -> Any:
        """Arrays on the devices, one part on each.

        Args:
            parts: tree of arrays with the parts of this process one after the other.
        """
        if self._mesh is None:
            return parts
        sharding = NamedSharding(self._mesh, PARTS)
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), parts
        )

    def parts(self, values: Any) -> list[Any]:
        """The parts of this process, on the host.

        Args:
            values: tree of arrays in parts, on the devices or as given to :meth:`put`.
        """
        if self._mesh is None:
            return [jax.device_get(values)]
        leaves, structure = jax.tree.flatten(values)
        columns = [_own_parts(leaf, len(self.own_parts)) for leaf in leaves]
        return [structure.unflatten(part) for part in zip(*columns, strict=True)]


def find_devices(
    kind: str, number: int | Literal["all"], *, batch_size: int
) -> tuple[Devices, jax.Device]:
    """The devices that options ask for, and the one for what is not shared.

    Args:
        kind: as JAX names it, ``cuda`` or ``auto``.
        number: of devices of each process.
        batch_size: structures per training step.

    Raises:
        ConfigurationError: there are fewer devices, or fewer structures than devices.
    """
    try:
        found = jax.devices(None if kind == "auto" else "gpu" if kind == "cuda" else kind)
    except RuntimeError:
        others = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise ConfigurationError(
            f"option 'device': JAX finds no {kind} device here, only: {others}"
            + advice_on_device(kind)
        ) from None
    by_process = [
        [device for device in found if device.process_index == process]
        for process in range(jax.process_count())
    ]
    fewest = min(by_process, key=len)
    each = len(fewest) if number == "all" else number
    if each > len(fewest) or not fewest:
        names = ", ".join(str(device) for device in fewest) or "none"
        where = f" for process {by_process.index(fewest)}" if len(by_process) > 1 else ""
        raise ConfigurationError(
            f"option 'devices': asks for {each}, JAX finds {len(fewest)}{where}: {names}. (One CPU "
            f"can pose as {max(each, 1)} devices, for trials: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={max(each, 1)})"
        )
    chosen = [device for devices in by_process for device in devices[:each]]
    if batch_size < len(chosen):
        raise ConfigurationError(
            f"option 'batch_size': found {batch_size}, expected at least one structure for each of "
            f"the {len(chosen)} devices"
        )
    return Devices(chosen), by_process[jax.process_index()][0]


def join_processes() -> None:
    """Join the other processes of the run; before JAX is asked for any device.

    They find each other by what Slurm, Open MPI, Kubernetes or a TPU pod tell JAX, or by the
    environment variables JAX_COORDINATOR_ADDRESS (``host:port`` of the first process),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        ConfigurationError: neither tells which processes there are.
    """
    if jax.distributed.is_initialized():
        return
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    try:
        if found:
            jax.distributed.initialize(
                found[COORDINATOR], int(found[NUM_PROCESSES]), int(found[PROCESS_ID])
            )
        else:
            jax.distributed.initialize()
    except (KeyError, ValueError) as error:
        described = ", ".join(f"{name}={value}" for name, value in found.items()) or "none"
        raise ConfigurationError(
            f"option 'distributed': cannot tell which processes there are ({error}). Start them "
            f"with Slurm or Open MPI, or set {COORDINATOR} (host:port of the first process), "
            f"{NUM_PROCESSES} and {PROCESS_ID} (number of this one, from 0); found of these: "
            f"{described}"
        ) from None
    # Their devices connect now, while none has to wait long for another: on CPUs only 30 s.
    wait_for_all_processes("connection")


def is_first_process() -> bool:
    """Whether this process writes files."""
    return jax.process_index() == 0


def wait_for_all_processes(where: str) -> None:
    """Return when all processes have come here.

    Args:
        where: a name for this place in the program.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def require_agreement(values: Any) -> None:
    """Refuse to go on if the processes were not started alike.

    Args:
        values: JSON values that have to be the same in all processes.

    Raises:
        ConfigurationError: they are not.
    """
    digest = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    if len(np.unique(rows_of_all_processes(np.array([digest])))) > 1:
        raise ConfigurationError(
            "option 'distributed': the processes found different options, data or saved states; "
            "start all with the same options, and let them see train_file, valid_file, test_file "
            "and work_dir under the same paths"
        )


def rows_of_all_processes(rows: np.ndarray) -> np.ndarray:
    """The rows that each process holds, one process after the other, in all of them.

    Args:
        rows: those of this process; their number may differ.
    """
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.array(len(rows)))
    padded = np.zeros((counts.max(), *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    gathered = multihost_utils.process_allgather(padded)
    return np.concatenate([part[:count] for part, count in zip(gathered, counts, strict=True)])


def _own_parts(values: Any, count: int) -> list[np.ndarray]:
    """An array of this process, or its share of one on several devices, in so many parts."""
    if isinstance(values, jax.Array):
        shards = sorted(values.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        values = np.concatenate(jax.device_get([shard.data for shard in shards]))
    return np.split(values, count)
