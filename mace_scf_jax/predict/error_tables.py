"""The errors shown during training and at its end, by the name of the option ``error_table``.

A table is a list of metrics with a heading, a unit and a format. During training they make one line
per evaluation; at the end, one table with a row per set. Absolute errors are shown in thousandths
(meV, me, ...), relative ones in percent. A metric that the data or the model do not have is left
out of the lines, and ``not found`` in the table.

The PyTorch reference prints some columns under units that the numbers do not have (``e A^l`` for
1e-3 e A^l, ``mDebye`` for me A) and accepts some tables for the epoch line only; here units are
those of the numbers, and every table has both forms.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence

from rich.box import ASCII
from rich.console import Console
from rich.table import Table

NOT_FOUND = "not found"
SMALLEST_SURPLUS = 5e-5
"""e; less does not show in the tables."""
DEFAULT_ERROR_TABLE = "auto"
"""Every error that data and model have."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One metric of a table."""

    metric: str
    label: str
    """In the line of an epoch."""
    heading: str
    """In the table at the end."""
    unit: str
    decimals: int
    """In the line of an epoch; the table at the end has two."""
    scale: float = 1000.0

    def in_epoch_line(self, metrics: Mapping[str, float]) -> str:
        """``label=value unit``."""
        return f"{self.label}={self.scale * metrics[self.metric]:.{self.decimals}f} {self.unit}"

    def in_table(self, metrics: Mapping[str, float]) -> str:
        """The value alone."""
        if self.metric not in metrics:
            return NOT_FOUND
        return f"{self.scale * metrics[self.metric]:.2f}"


def _relative(metric: str, label: str, heading: str) -> Column:
    return Column(metric, label, f"relative {heading}", "%", 2, scale=1.0)


_ENERGY = Column("rmse_e", "RMSE_E", "RMSE E", "meV", 1)
_ENERGY_PER_ATOM = Column("rmse_e_per_atom", "RMSE_E_per_atom", "RMSE E", "meV / atom", 1)
_ENERGY_MAE = Column("mae_e", "MAE_E", "MAE E", "meV", 1)
_ENERGY_PER_ATOM_MAE = Column("mae_e_per_atom", "MAE_E_per_atom", "MAE E", "meV / atom", 1)
_FORCE = Column("rmse_f", "RMSE_F", "RMSE F", "meV / A", 1)
_FORCE_RELATIVE = _relative("rel_rmse_f", "rel_RMSE_F", "F RMSE")
_FORCE_MAE = Column("mae_f", "MAE_F", "MAE F", "meV / A", 1)
_FORCE_MAE_RELATIVE = _relative("rel_mae_f", "rel_MAE_F", "F MAE")
_STRESS = Column("rmse_stress", "RMSE_stress", "RMSE stress", "meV / A^3", 1)
_MULTIPOLES = Column("rmse_dma", "RMSE_DMA", "RMSE DMA", "me A^l", 1)
_MULTIPOLES_RELATIVE = _relative("rel_rmse_dma", "rel_RMSE_DMA", "DMA RMSE")
_CHARGES = Column("rmse_charges", "RMSE_charges", "RMSE charges", "me", 1)
_LOCAL_DIPOLES = Column("rmse_local_dipoles", "RMSE_dipoles", "RMSE local dipoles", "me A", 1)
_DIPOLE = Column("rmse_mu_per_atom", "RMSE_MU_per_atom", "RMSE dipole", "me A / atom", 2)
_DIPOLE_RELATIVE = _relative("rel_rmse_mu", "rel_RMSE_MU", "dipole RMSE")
_POLARIZABILITY = Column(
    "rmse_polarizability_per_atom",
    "RMSE_polarizability_per_atom",
    "RMSE polarizability",
    "me A^2 / V / atom",
    2,
)
_TOTAL_CHARGE = Column("rmse_total_charge", "RMSE_Q", "RMSE total charge", "me", 1)
"""Of charge beyond `total_charge`; in every table where there is any."""
_FERMI_LEVEL = Column("rmse_fermi_level", "RMSE_FERMI", "RMSE Fermi level", "meV", 1)
_POTENTIAL = Column("rmse_esp", "RMSE_ESP", "RMSE ESP", "mV", 1)
_POTENTIAL_RELATIVE = _relative("rel_rmse_esp", "rel_RMSE_ESP", "ESP RMSE")


@dataclasses.dataclass(frozen=True)
class ErrorTable:
    """What one kind of error report shows."""

    epoch_line: tuple[Column, ...]
    final_table: tuple[Column, ...]
    only_found: bool = False
    """Whether what no set has is no column, and is not said to be missing."""


_ALL = (
    _ENERGY_PER_ATOM,
    _FORCE,
    _STRESS,
    _MULTIPOLES,
    _DIPOLE,
    _POLARIZABILITY,
    _FERMI_LEVEL,
    _POTENTIAL,
)

_ALL_AT_THE_END = (
    *(_ENERGY_PER_ATOM, _ENERGY_PER_ATOM_MAE, _FORCE, _FORCE_MAE),
    *(column for column in _ALL if column not in (_ENERGY_PER_ATOM, _FORCE)),
)
"""Energies and forces with both errors."""

ERROR_TABLES: dict[str, ErrorTable] = {
    DEFAULT_ERROR_TABLE: ErrorTable(_ALL, _ALL_AT_THE_END, only_found=True),
    "PerAtomRMSE": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE), (_ENERGY_PER_ATOM, _FORCE, _FORCE_RELATIVE)
    ),
    "PerAtomRMSEstressvirials": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE, _STRESS), (_ENERGY_PER_ATOM, _FORCE, _FORCE_RELATIVE, _STRESS)
    ),
    "TotalRMSE": ErrorTable((_ENERGY, _FORCE), (_ENERGY, _FORCE, _FORCE_RELATIVE)),
    "PerAtomMAE": ErrorTable(
        (_ENERGY_PER_ATOM_MAE, _FORCE_MAE),
        (_ENERGY_PER_ATOM_MAE, _FORCE_MAE, _FORCE_MAE_RELATIVE),
    ),
    "TotalMAE": ErrorTable(
        (_ENERGY_MAE, _FORCE_MAE), (_ENERGY_MAE, _FORCE_MAE, _FORCE_MAE_RELATIVE)
    ),
    "DensityCoefficientsRMSE": ErrorTable(
        (_MULTIPOLES, _MULTIPOLES_RELATIVE),
        (_MULTIPOLES, _MULTIPOLES_RELATIVE, _CHARGES, _LOCAL_DIPOLES),
    ),
    "DensityEnergyRMSE": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE, _MULTIPOLES),
        (_ENERGY_PER_ATOM, _FORCE, _FORCE_RELATIVE, _MULTIPOLES),
    ),
    "DipoleRMSE": ErrorTable((_DIPOLE,), (_DIPOLE, _DIPOLE_RELATIVE)),
    "DensityDipoleRMSE": ErrorTable(
        (_MULTIPOLES, _DIPOLE), (_DIPOLE, _DIPOLE_RELATIVE, _MULTIPOLES, _MULTIPOLES_RELATIVE)
    ),
    "EnergyDipoleRMSE": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE, _DIPOLE),
        (_ENERGY_PER_ATOM, _FORCE, _FORCE_RELATIVE, _DIPOLE, _DIPOLE_RELATIVE),
    ),
    "EnergyDensityDipoleRMSE": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE, _MULTIPOLES, _DIPOLE, _POLARIZABILITY),
        (
            _ENERGY_PER_ATOM,
            _FORCE,
            _FORCE_RELATIVE,
            _MULTIPOLES,
            _DIPOLE,
            _DIPOLE_RELATIVE,
            _POLARIZABILITY,
        ),
    ),
    "EnergyDipolePotentialsRMSE": ErrorTable(
        (_ENERGY_PER_ATOM, _FORCE, _DIPOLE, _POTENTIAL),
        (
            _ENERGY_PER_ATOM,
            _FORCE,
            _FORCE_RELATIVE,
            _DIPOLE,
            _DIPOLE_RELATIVE,
            _POTENTIAL,
            _POTENTIAL_RELATIVE,
        ),
    ),
}
"""All error reports by the name used in the option ``error_table``."""


def epoch_line(table: str, epoch: int, loss: float, metrics: Mapping[str, float]) -> str:
    """One line on one evaluation.

    Args:
        table: name in ``ERROR_TABLES``.
        epoch: number of the epoch.
        loss: validation loss.

    Returns:
        ``Epoch <n>: loss=<x>, <label>=<value> <unit>, …``, without metrics that there are not
    """
    columns = _with_surplus(ERROR_TABLES[table].epoch_line, [metrics])
    errors = [column.in_epoch_line(metrics) for column in columns if column.metric in metrics]
    return ", ".join([f"Epoch {epoch}: loss={loss:.4f}", *errors])


def labels_without_metric(table: str, metrics: Mapping[str, float]) -> tuple[str, ...]:
    """What the line of an epoch would show, if the data and the model had it.

    Args:
        table: name in ``ERROR_TABLES``.
    """
    shown = ERROR_TABLES[table]
    if shown.only_found:
        return ()
    return tuple(column.label for column in shown.epoch_line if column.metric not in metrics)


def final_table(table: str, sets: Mapping[str, Mapping[str, float]]) -> str:
    """The errors of all sets as a plain-text table.

    Args:
        table: name in ``ERROR_TABLES``.
        sets: metrics of each set by its name; shown in the order train, valid, others sorted.
    """
    shown, of_sets = ERROR_TABLES[table], list(sets.values())
    columns = [
        column
        for column in _with_surplus(shown.final_table, of_sets)
        if not shown.only_found or any(column.metric in metrics for metrics in of_sets)
    ]
    first = [name for name in ("train", "valid") if name in sets]
    names = [*first, *sorted(set(sets) - set(first))]
    grid = Table(box=ASCII)
    grid.add_column("set" if first else "config_type", no_wrap=True)
    for column in columns:
        grid.add_column(f"{column.heading}\n{column.unit}", justify="right", no_wrap=True)
    for name in names:
        grid.add_row(name, *(column.in_table(sets[name]) for column in columns))
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None, markup=False).print(grid)
    return text.getvalue().rstrip("\n")


def _with_surplus(
    columns: tuple[Column, ...], sets: Sequence[Mapping[str, float]]
) -> tuple[Column, ...]:
    """The columns, and that of the total charge if a set of metrics has an error of it."""
    errors = [metrics.get(_TOTAL_CHARGE.metric, 0.0) for metrics in sets]
    return (*columns, _TOTAL_CHARGE) if max(errors, default=0.0) > SMALLEST_SURPLUS else columns
