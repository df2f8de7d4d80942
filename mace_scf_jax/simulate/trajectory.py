"""Files of a simulation: trajectory, thermodynamic log, and the state from which it goes on."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import numpy as np

from mace_scf_jax.data.properties import GRAPH_INPUTS
from mace_scf_jax.files import Format, flush
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.surplus import SurplusWatch
from mace_scf_jax.simulate.constraints import describe_fixed, mobile_coordinates
from mace_scf_jax.simulate.frames import Trajectory, trajectory
from mace_scf_jax.simulate.observation import COLUMNS, LogRow, observe
from mace_scf_jax.simulate.settings import SimulationError, SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation, Snapshot
from mace_scf_jax.simulate.stopping import SimulationStopped, advice

STATE = Format(
    name="mace-scf-jax simulation",
    noun="state of a simulation",
    version=2,
    sha256_since=2,
    error=SimulationError,
)


@dataclasses.dataclass(frozen=True)
class SimulationFiles:
    """The files of a simulation, beside its trajectory."""

    trajectory: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "trajectory", Path(self.trajectory))
        trajectory(self.trajectory)
        if not self.trajectory.parent.is_dir():
            raise SimulationError(f"{self.trajectory}: no such folder")

    @property
    def frames(self) -> Trajectory:
        """What frames are added to."""
        return trajectory(self.trajectory)

    @property
    def log(self) -> Path:
        """Thermodynamic log."""
        return self.trajectory.with_suffix(".csv")

    @property
    def plot(self) -> Path:
        """Picture of the log."""
        return self.trajectory.with_suffix(".png")

    @property
    def state(self) -> Path:
        """What a restart needs."""
        return self.trajectory.with_suffix(".state.safetensors")

    def require_none(self) -> None:
        """Refuse to write over something.

        Raises:
            SimulationError: one of the files exists.
        """
        for path in (*self.frames.paths, self.log, self.state):
            if path.exists():
                raise SimulationError(
                    f"{path}: exists already; go on with --restart, replace with --overwrite, or "
                    "choose another --output"
                )

    def remove(self) -> None:
        """Delete what an earlier simulation wrote."""
        for path in (self.state, *self.frames.paths, self.log, self.plot):
            path.unlink(missing_ok=True)

    def append(
        self,
        simulation: Simulation,
        model_checksum: str,
        *,
        with_row: bool = True,
        with_frame: bool = True,
    ) -> LogRow:
        """Write the present state.

        Args:
            with_row: write a row of the log.
            with_frame: write a frame, and then what a restart from there needs.
        """
        frame, row = observe(simulation)
        if with_row:
            self._add_to_log(row)
        if with_frame:
            self.frames.append(frame)
            self._write_state(simulation, frame, model_checksum)
        return row

    def _add_to_log(self, row: LogRow) -> None:
        """Write a row with the columns that the log has; an earlier version knew fewer."""
        columns = COLUMNS
        if self.log.exists():
            with self.log.open(newline="") as file:
                columns = next(csv.reader(file), COLUMNS)
        with self.log.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if not self.log.stat().st_size:
                writer.writeheader()
            writer.writerow(dataclasses.asdict(row))
        flush(self.log)

    def _write_state(self, simulation: Simulation, frame: ase.Atoms, model_checksum: str) -> None:
        snapshot = simulation.snapshot()
        tensors = {name: getattr(snapshot, name) for name in _TENSORS} | {"numbers": frame.numbers}
        record = {
            "steps_done": snapshot.steps_done,
            "heat": snapshot.heat,
            "settings": conditions(simulation.energy_fn.model, frame, simulation.settings),
            "model": model_checksum,
            self.frames.extent_is: self.frames.extent(),
            "log_bytes": self.log.stat().st_size,
        }
        STATE.write(self.state, tensors, {"record": record})

    def read_state(self) -> RestartState:
        """What a restart needs.

        Raises:
            SimulationError: there is no such file, or it is damaged.
        """
        if not self.state.is_file():
            raise SimulationError(f"{self.state}: no such file, nothing to go on from")
        content = STATE.read(self.state)
        record = content.entries["record"]
        snapshot = Snapshot(
            **{name: content.arrays[name] for name in _TENSORS},
            heat=record["heat"],
            steps_done=record["steps_done"],
        )
        return RestartState(snapshot, content.arrays["numbers"], record)

    def go_back_to(self, state: RestartState) -> None:
        """Drop frames and rows that were written after a state.

        Raises:
            SimulationError: trajectory or log lack what was written before the state.
        """
        frames, log_bytes = self.frames, self.log.stat().st_size if self.log.exists() else 0
        for path, name, found in (
            (frames.path, frames.extent_is, frames.extent()),
            (self.log, "log_bytes", log_bytes),
        ):
            if found < state.record.get(name, 0):
                raise SimulationError(
                    f"{path}: found {found} {name.split('_')[1]}, expected at least "
                    f"{state.record[name]}, which it had when {self.state.name} was written"
                )
        frames.cut(state.record[frames.extent_is])
        os.truncate(self.log, state.record["log_bytes"])


_TENSORS = ("positions", "momenta", "cell", "key")


@dataclasses.dataclass(frozen=True)
class RestartState:
    """The content of a state file."""

    snapshot: Snapshot
    numbers: np.ndarray
    """Atomic numbers."""
    record: dict[str, Any]
    """Settings, model and sizes of the other files."""

    def check(self, atoms: ase.Atoms, settings: dict[str, Any], model_checksum: str) -> None:
        """Refuse to go on with something else.

        Args:
            settings: the `conditions` to go on with; states of earlier versions lack some.

        Raises:
            SimulationError: atoms, settings or model differ.
        """
        if not np.array_equal(atoms.numbers, self.numbers):
            raise SimulationError(
                f"restart: found {atoms.get_chemical_formula()}, expected the atoms of the state, "
                f"{ase.Atoms(self.numbers).get_chemical_formula()}, in the same order"
            )
        for name, value in settings.items():
            before = self.record["settings"].get(name, value)
            if value != before:
                raise SimulationError(
                    f"restart, {name}: found {value}, expected {before} as before"
                )
        if model_checksum != self.record["model"]:
            raise SimulationError("restart: the model file is not the one of the state")


def conditions(model: Model, atoms: ase.Atoms, settings: SimulationSettings) -> dict[str, Any]:
    """What a simulation is not to change on its way, as plain data."""
    density, values = model.settings.electrostatics, model.read(atoms).values
    dispersion = model.settings.dispersion
    return {
        **dataclasses.asdict(settings),
        **{name: values[name].tolist() for name in GRAPH_INPUTS},
        "fixed": describe_fixed(mobile_coordinates(atoms)),
        "pbc_handling": None if density is None else density.boundary.value,
        "dtype": model.dtype.name,
        "dispersion": None if dispersion is None else dispersion.words,
    }


def run(
    simulation: Simulation,
    files: SimulationFiles,
    *,
    num_steps: int,
    every: int,
    log_every: int | None = None,
    model_checksum: str,
) -> Iterator[LogRow]:
    """Simulate up to a number of steps, and write every so often.

    Charge beyond the total charge of the structure is warned of once.

    Args:
        simulation: its first frame is written too, where it starts.
        files: where to write.
        num_steps: steps in all, those done before included.
        every: steps between frames. The last step is written too.
        log_every: steps between rows of the log; None for those of the frames.
        model_checksum: of the file of the model.

    Yields:
        Every row of the log, once it is written.

    Raises:
        SimulationError: the simulation cannot go on. The last good step is written before, and the
            message tells what helps.
    """
    try:
        yield from _rows(simulation, files, num_steps, every, log_every or every, model_checksum)
    finally:
        files.frames.finish()


def _rows(
    simulation: Simulation,
    files: SimulationFiles,
    num_steps: int,
    every: int,
    log_every: int,
    model_checksum: str,
) -> Iterator[LogRow]:
    """Simulate, and write frames and rows."""
    surplus = SurplusWatch(simulation.energy_fn.model.keeps_total_charge)

    def write(*, with_row: bool = True, with_frame: bool = True) -> LogRow:
        row = files.append(simulation, model_checksum, with_row=with_row, with_frame=with_frame)
        surplus.look(row.total_charge_e, simulation.total_charge)
        return row

    written = simulation.steps_done
    if written == 0:
        yield write()
    while (done := simulation.steps_done) < num_steps:
        ahead = min(interval - done % interval for interval in (every, log_every))
        try:
            simulation.advance(min(ahead, num_steps - done))
        except SimulationStopped as stopped:
            if simulation.steps_done > written:
                yield write()
            stopped.args = (
                f"{stopped}. The last good step, {simulation.steps_done}, is the last frame of "
                f"{files.trajectory}. {advice(simulation, stopped.status)}",
            )
            raise
        done = simulation.steps_done
        with_row, with_frame = (
            done % interval == 0 or done == num_steps for interval in (log_every, every)
        )
        row = write(with_row=with_row, with_frame=with_frame)
        if with_frame:
            written = done
        if with_row:
            yield row
