"""Files of a simulation: trajectory, thermodynamic log, and the state from which it goes on."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.io
import jax
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.data.properties import GRAPH_INPUTS
from mace_scf_jax.files import Format, flush
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.surplus import SurplusWatch
from mace_scf_jax.simulate import dynamics
from mace_scf_jax.simulate.dynamics import SimulationError, SimulationSettings
from mace_scf_jax.simulate.results import Results
from mace_scf_jax.simulate.simulation import Simulation, Snapshot

STATE = Format(
    name="mace-scf-jax simulation",
    noun="state of a simulation",
    version=2,
    sha256_since=2,
    error=SimulationError,
)
SUFFIXES = (".xyz", ".extxyz")


@dataclasses.dataclass(frozen=True)
class LogRow:
    """Thermodynamic state of a simulation at one step; None for what it does not have."""

    step: int
    time_ps: float
    potential_energy_eV: float  # noqa: N815 (a column of the log file)
    kinetic_energy_eV: float  # noqa: N815
    conserved_energy_eV: float | None  # noqa: N815
    """Potential and kinetic energy less the heat of the thermostat; not defined for "npt"."""
    temperature_K: float  # noqa: N815
    pressure_bar: float | None
    volume_A3: float | None  # noqa: N815
    total_charge_e: float | None


COLUMNS = tuple(field.name for field in dataclasses.fields(LogRow))


@dataclasses.dataclass(frozen=True)
class SimulationFiles:
    """The files of a simulation, beside its trajectory."""

    trajectory: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "trajectory", Path(self.trajectory))
        if self.trajectory.suffix not in SUFFIXES:
            raise SimulationError(
                f"{self.trajectory}: found suffix {self.trajectory.suffix!r}, expected "
                f"{' or '.join(SUFFIXES)}"
            )
        if not self.trajectory.parent.is_dir():
            raise SimulationError(f"{self.trajectory}: no such folder")

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
        for path in (self.trajectory, self.log, self.state):
            if path.exists():
                raise SimulationError(
                    f"{path}: exists already; go on with --restart, replace with --overwrite, or "
                    "choose another --output"
                )

    def remove(self) -> None:
        """Delete what an earlier simulation wrote."""
        for path in (self.state, self.trajectory, self.log, self.plot):
            path.unlink(missing_ok=True)

    def append(self, simulation: Simulation, model_checksum: str) -> LogRow:
        """Write the present state: a frame, a row, and what a restart needs, in this order."""
        frame, row = observe(simulation)
        text = io.StringIO()
        ase.io.write(text, frame, format="extxyz")
        with self.trajectory.open("a") as file:
            file.write(text.getvalue())
        is_new = not self.log.exists()
        with self.log.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow("" if value is None else value for value in dataclasses.astuple(row))
        for path in (self.trajectory, self.log):  # before the state that counts on them
            flush(path)
        self._write_state(simulation, frame, model_checksum)
        return row

    def _write_state(self, simulation: Simulation, frame: ase.Atoms, model_checksum: str) -> None:
        snapshot = simulation.snapshot()
        tensors = {name: getattr(snapshot, name) for name in _TENSORS} | {"numbers": frame.numbers}
        record = {
            "steps_done": snapshot.steps_done,
            "heat": snapshot.heat,
            "settings": conditions(simulation.energy_fn.model, frame, simulation.settings),
            "model": model_checksum,
            "trajectory_bytes": self.trajectory.stat().st_size,
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
        for path, name in ((self.trajectory, "trajectory_bytes"), (self.log, "log_bytes")):
            found = path.stat().st_size if path.exists() else 0
            if found < state.record[name]:
                raise SimulationError(
                    f"{path}: found {found} bytes, expected at least {state.record[name]}, which "
                    f"it had when {self.state.name} was written"
                )
        for path, name in ((self.trajectory, "trajectory_bytes"), (self.log, "log_bytes")):
            os.truncate(path, state.record[name])


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
    return {
        **dataclasses.asdict(settings),
        **{name: values[name].tolist() for name in GRAPH_INPUTS},
        "pbc_handling": None if density is None else density.boundary.value,
        "dtype": model.dtype.name,
    }


def observe(simulation: Simulation) -> tuple[ase.Atoms, LogRow]:
    """The present frame of a simulation, with its results, and its row of the log."""
    frame = simulation.to_atoms()
    is_periodic = bool(frame.pbc.all())
    results: Results = jax.device_get(simulation.observe(stress=is_periodic))
    state, masses = simulation.state, simulation.masses
    kinetic = float(dynamics.kinetic_energy(state.momenta, masses))
    potential = float(results.energy)
    found = {"energy": potential, "forces": np.asarray(results.forces, np.float64)}
    pressure = None
    if is_periodic:
        found["stress"] = full_3x3_to_voigt_6_stress(np.asarray(results.stress, np.float64))
        kinetic_pressure = 2.0 / 3.0 * kinetic / frame.get_volume()
        pressure = (kinetic_pressure - float(np.trace(results.stress)) / 3.0) / units.bar
    if results.multipoles is not None:
        if not np.isnan(results.dipole).all():  # along periodic directions it may mean nothing
            found["dipole"] = np.asarray(results.dipole, np.float64)
        frame.arrays["multipoles"] = np.asarray(results.multipoles, np.float64)
    frame.info["step"] = simulation.steps_done
    if "forces_std" in results.further:  # of a committee
        frame.info["energy_std"] = float(results.further["energy_std"])
        frame.arrays["forces_std"] = np.asarray(results.further["forces_std"], np.float64)
    frame.calc = SinglePointCalculator(frame, **found)
    keeps_energy = simulation.settings.ensemble != "npt"
    return frame, LogRow(
        step=simulation.steps_done,
        time_ps=simulation.time,
        potential_energy_eV=potential,
        kinetic_energy_eV=kinetic,
        conserved_energy_eV=potential + kinetic - float(state.heat) if keeps_energy else None,
        temperature_K=2.0 * kinetic / (simulation.degrees_of_freedom * units.kB),
        pressure_bar=pressure,
        volume_A3=frame.get_volume() if is_periodic else None,
        total_charge_e=None if results.total_charge is None else float(results.total_charge),
    )


def run(
    simulation: Simulation,
    files: SimulationFiles,
    *,
    num_steps: int,
    every: int,
    model_checksum: str,
) -> Iterator[LogRow]:
    """Simulate up to a number of steps, and write every so often.

    Charge beyond the total charge of the structure is warned of once.

    Args:
        simulation: its first frame is written too, where it starts.
        files: where to write.
        num_steps: steps in all, those done before included.
        every: steps between frames. The last step is written too.
        model_checksum: of the file of the model.

    Yields:
        Every row of the log, once it is written.
    """
    surplus = SurplusWatch(simulation.energy_fn.model.keeps_total_charge)

    def write() -> LogRow:
        row = files.append(simulation, model_checksum)
        surplus.look(row.total_charge_e, simulation.total_charge)
        return row

    if simulation.steps_done == 0:
        yield write()
    while simulation.steps_done < num_steps:
        ahead = every - simulation.steps_done % every
        simulation.advance(min(ahead, num_steps - simulation.steps_done))
        yield write()


def plot_log(path: str | Path, picture: str | Path) -> None:
    """Draw the log of a simulation over time, as a picture in a file."""
    from matplotlib.figure import Figure  # slow to import

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    panels = {
        "energy / eV": ("potential_energy_eV", "conserved_energy_eV"),
        "temperature / K": ("temperature_K",),
        "pressure / bar": ("pressure_bar",),
        "volume / Å³": ("volume_A3",),
    }
    shown = {
        label: [name for name in names if rows and rows[0][name]] for label, names in panels.items()
    }
    shown = {label: names for label, names in shown.items() if names}
    figure = Figure(figsize=(7.0, 2.0 * len(shown)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(shown), sharex=True))
    for axis, (label, names) in zip(axes, shown.items(), strict=True):
        for name in names:
            values = np.array([float(row[name]) for row in rows])
            offset = values[0] if label.startswith("energy") else 0.0
            axis.plot([float(row["time_ps"]) for row in rows], values - offset, label=name)
        axis.set_ylabel(label)
        axis.legend()
    axes[-1].set_xlabel("time / ps")
    figure.savefig(picture, dpi=150)
