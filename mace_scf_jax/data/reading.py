"""Reading labelled structures from extended XYZ files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import ase
import ase.io

from mace_scf_jax.data.cells import MINIMUM_OPEN_CELL, CellRule
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.keys import KeySpecification

logger = logging.getLogger("mace_scf_jax")

SUFFIXES = (".xyz", ".extxyz")


def read_atoms(path: str | Path) -> list[ase.Atoms]:
    """All structures of an extended XYZ file, as ASE reads them.

    Raises:
        DataError: if the file is missing, has another suffix, is empty or cannot be parsed.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise DataError(f"{path}: found suffix {file.suffix!r}, expected .xyz or .extxyz")
    if not file.is_file():
        raise DataError(f"{path}: no such file")
    structures: list[ase.Atoms] = []
    try:
        structures.extend(ase.io.iread(file, index=":", format="extxyz"))
    except Exception as error:  # ASE's parser raises many kinds of exception on broken files.
        raise DataError(
            f"{path}, configuration {len(structures)}: not readable as extended XYZ ({error})"
        ) from error
    if not structures:
        raise DataError(f"{path}: found no structures")
    return structures


def read_configurations(
    path: str | Path,
    keys: KeySpecification,
    *,
    multipoles_max_l: int,
    config_type_weights: Mapping[str, float] | None = None,
) -> list[Configuration]:
    """All configurations of an extended XYZ file.

    Args:
        path: file ending in .xyz or .extxyz.
        keys: which key of the file holds which property.
        multipoles_max_l: highest order of reference multipoles to keep.
        config_type_weights: factor on the weight of a configuration by its `config_type`.

    Raises:
        DataError: if the file or anything in it cannot be used.
    """
    return to_configurations(
        read_atoms(path),
        keys,
        file=str(path),
        multipoles_max_l=multipoles_max_l,
        config_type_weights=config_type_weights,
    )


def to_configurations(
    structures: Sequence[ase.Atoms],
    keys: KeySpecification,
    *,
    file: str,
    multipoles_max_l: int,
    config_type_weights: Mapping[str, float] | None = None,
) -> list[Configuration]:
    """Configurations of structures that were read from `file`; see `read_configurations`."""
    configurations = [
        from_atoms(
            atoms,
            keys=keys,
            multipoles_max_l=multipoles_max_l,
            config_type_weights=config_type_weights,
            location=Location(file, index),
            read_calculator=True,
        )
        for index, atoms in enumerate(structures)
    ]
    _report_missing_labels(configurations, keys, file)
    _report_adjusted_cells(configurations, file)
    return configurations


def _report_missing_labels(
    configurations: Sequence[Configuration], keys: KeySpecification, file: str
) -> None:
    """Warn about mapped energies or forces that a file has none of."""
    for name in ("energy", "forces"):
        key = keys.key_of(name)
        if key is not None and not any(name in entry.present for entry in configurations):
            logger.warning("%s: no configuration has %s (key %r)", file, name, key)


def _report_adjusted_cells(configurations: Iterable[Configuration], file: str) -> None:
    """Warn, once per file, about cells that were changed for the electrostatics."""
    open_cells = [entry for entry in configurations if not entry.pbc.any()]
    counts = {
        rule: sum(entry.cell_rule is rule for entry in open_cells)
        for rule in (CellRule.RAISED, CellRule.CUBE)
    }
    if not any(counts.values()):
        return
    logger.warning(
        "%s: of %d configurations without periodic directions, the cell for the electrostatics "
        "was enlarged in %d (min cell dimension for pbc=False is %gA) and replaced in %d "
        "(cell was too small, setting to a cube of twice the largest extent)",
        file,
        len(open_cells),
        counts[CellRule.RAISED],
        MINIMUM_OPEN_CELL,
        counts[CellRule.CUBE],
    )
