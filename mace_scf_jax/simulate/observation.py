"""What is seen of a simulation at one step: a frame with results, and its thermodynamic state."""

from __future__ import annotations

import dataclasses

import ase
import jax
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mace_scf_jax.predict.spread import UNCERTAINTIES
from mace_scf_jax.simulate import dynamics
from mace_scf_jax.simulate.results import Results
from mace_scf_jax.simulate.simulation import Simulation


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
    force_uncertainty_eV_A: float | None  # noqa: N815
    """Of a committee: the largest norm of the standard deviation of a force."""


COLUMNS = tuple(field.name for field in dataclasses.fields(LogRow))


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
        found["charges"] = np.asarray(results.further["charges"], np.float64)
        frame.arrays["multipoles"] = np.asarray(results.multipoles, np.float64)
    frame.info["step"] = simulation.steps_done
    uncertainty = None
    if "forces_std" in results.further:  # of a committee
        uncertainty = float(
            UNCERTAINTIES["forces"].value({"forces": results.further["forces_std"]})
        )
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
        force_uncertainty_eV_A=uncertainty,
        total_charge_e=None if results.total_charge is None else float(results.total_charge),
    )
