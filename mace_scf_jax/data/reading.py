"""Reading labelled structures from extended XYZ files, whole or in parts found without parsing."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import ase

from mace_scf_jax.data.cells import MINIMUM_OPEN_CELL, CellRule
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.extended_xyz import Frame, frames, structures_in
from mace_scf_jax.data.keys import KeySpecification

logger = logging.getLogger("mace_scf_jax")

SUFFIXES = (".xyz", ".extxyz")


def read_atoms(path: str | Path) -> list[ase.Atoms]:
    """All structures of an extended XYZ file, as ASE reads them.

    Raises:
        DataError: if the file is missing, has another suffix, is empty or cannot be parsed.
    """
    check_readable(path)
    structures = structures_in(Path(path).read_bytes(), name=str(path))
    if not structures:
        raise DataError(f"{path}: found no structures")
    return structures


def check_readable(path: str | Path) -> None:
    """Refuse a file that is not there or has another suffix.

    Raises:
        DataError: names the file.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise DataError(f"{path}: found suffix {file.suffix!r}, expected .xyz or .extxyz")
    if not file.is_file():
        raise DataError(f"{path}: no such file")


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Consecutive structures of an extended XYZ file."""

    file: str
    """Path as the user gave it."""
    first_byte: int
    end_byte: int
    first_line: int
    """Number of the first line, from 1."""
    first_index: int
    """Position of the first structure in the file, from 0."""
    count: int

    def read(self) -> list[ase.Atoms]:
        """The structures, as ASE reads them.

        Raises:
            DataError: if they cannot be parsed.
        """
        with Path(self.file).open("rb") as file:
            file.seek(self.first_byte)
            data = file.read(self.end_byte - self.first_byte)
        return structures_in(
            data, name=self.file, first_index=self.first_index, first_line=self.first_line
        )


def file_parts(path: str | Path, *, largest: int) -> list[FilePart]:
    """Cut an extended XYZ file between structures.

    Args:
        largest: bytes of a part, unless one structure alone has more.

    Raises:
        DataError: if the file is missing, has another suffix, holds no structure, or a structure
            does not begin with its number of atoms.
    """
    check_readable(path)
    groups: list[list[Frame]] = []
    with Path(path).open("rb") as file:
        for frame in frames(file, name=str(path)):
            if not groups or frame.end_byte - groups[-1][0].first_byte > largest:
                groups.append([])
            groups[-1].append(frame)
    if not groups:
        raise DataError(f"{path}: found no structures")
    return [
        FilePart(
            file=str(path),
            first_byte=group[0].first_byte,
            end_byte=group[-1].end_byte,
            first_line=group[0].line,
            first_index=sum(map(len, groups[:number])),
            count=len(group),
        )
        for number, group in enumerate(groups)
    ]


def to_configurations(
    structures: Sequence[ase.Atoms],
    keys: KeySpecification,
    *,
    file: str,
    multipoles_max_l: int,
    config_type_weights: Mapping[str, float] | None = None,
    first_index: int = 0,
) -> list[Configuration]:
    """Configurations of consecutive structures of a file.

    Args:
        structures: as `read_atoms` gives them.
        keys: which key of the file holds which property.
        file: path, for messages.
        multipoles_max_l: highest order of reference multipoles to keep.
        config_type_weights: factor on the weight of a configuration by its `config_type`.
        first_index: position of the first structure in the file.

    Raises:
        DataError: if a structure cannot be used.
    """
    return [
        from_atoms(
            atoms,
            keys=keys,
            multipoles_max_l=multipoles_max_l,
            config_type_weights=config_type_weights,
            location=Location(file, first_index + index),
            read_calculator=True,
        )
        for index, atoms in enumerate(structures)
    ]


def warn_about(configurations: Sequence[Configuration], keys: KeySpecification, file: str) -> None:
    """Warn, once per file, about labels that are nowhere and cells that were changed."""
    warn_about_missing_labels(
        frozenset().union(*(entry.present for entry in configurations)), keys, file
    )
    warn_about_adjusted_cells(
        [entry.cell_rule for entry in configurations if not entry.pbc.any()], file
    )


def warn_about_missing_labels(present: Container[str], keys: KeySpecification, file: str) -> None:
    """Warn about mapped energies or forces that are not among the properties of a file."""
    for name in ("energy", "forces"):
        key = keys.key_of(name)
        if key is not None and name not in present:
            logger.warning("%s: no configuration has %s (key %r)", file, name, key)


def warn_about_adjusted_cells(rules: Sequence[CellRule], file: str) -> None:
    """Warn, once per file, about cells of open structures changed for the electrostatics."""
    counts = Counter(rules)
    if counts[CellRule.RAISED] or counts[CellRule.CUBE]:
        logger.warning(
            "%s: of %d configurations without periodic directions, the cell for the electrostatics "
            "was enlarged in %d (min cell dimension for pbc=False is %gA) and replaced in %d "
            "(cell was too small, setting to a cube of twice the largest extent)",
            file,
            len(rules),
            counts[CellRule.RAISED],
            MINIMUM_OPEN_CELL,
            counts[CellRule.CUBE],
        )
