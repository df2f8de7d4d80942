"""Pictures of simulations."""

import csv

import numpy as np

from mace_scf_jax.reports.simulation import running_mean, simulation_log
from mace_scf_jax.reports.style import save
from mace_scf_jax.simulate.observation import COLUMNS, LogRow


def write_log(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(
                "" if (value := getattr(row, name)) is None else value for name in COLUMNS
            )


def row(step, *, volume=None):
    energies = {"potential_energy_eV": -9.0 + 0.1 * step, "kinetic_energy_eV": 1.0}
    return LogRow(
        step,
        0.1 * step,
        **energies,
        conserved_energy_eV=None if volume else -8.0,
        temperature_K=300.0 + step,
        pressure_bar=None if volume is None else 2.0,
        volume_A3=volume,
        total_charge_e=0.0,
        force_uncertainty_eV_A=None,
    )


def test_targets_are_drawn(tmp_path):
    write_log(tmp_path / "log.csv", [row(step, volume=70.0 + step) for step in range(20)])
    figure = simulation_log(tmp_path / "log.csv", temperature=310.0, pressure=1.0)
    by_label = {axes.get_ylabel(): axes for axes in figure.axes}
    assert list(by_label) == [
        "energy change / eV",
        "temperature / K",
        "pressure / bar",
        "volume / Å³",
    ]
    for label, value in (("temperature / K", 310.0), ("pressure / bar", 1.0)):
        lines = {line.get_label(): line.get_ydata() for line in by_label[label].get_lines()}
        assert set(lines[f"target {value:g}"]) == {value}
    (potential, _) = by_label["energy change / eV"].get_lines()
    np.testing.assert_allclose(potential.get_ydata(), 0.1 * np.arange(20))
    assert save(figure, tmp_path / "log.png").exists()


def test_a_cluster_at_constant_energy_has_no_pressure_and_no_target(tmp_path):
    write_log(tmp_path / "log.csv", [row(0)])
    figure = simulation_log(tmp_path / "log.csv")
    assert [axes.get_ylabel() for axes in figure.axes] == ["energy change / eV", "temperature / K"]


def test_a_running_mean_is_that_of_a_tenth():
    time = np.arange(40.0)
    at, mean = running_mean(time, time**2)
    np.testing.assert_allclose(at[:2], [1.5, 2.5])
    np.testing.assert_allclose(mean[:2], [14.0 / 4, 30.0 / 4])
