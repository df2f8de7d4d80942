"""Reading labelled structures from extended XYZ files, whole or in parts found without parsing."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
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
    check_readable(path)
    structures = read_frames(Path(path), str(path))
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


def read_frames(source: Path | io.StringIO, file: str, *, first_index: int = 0) -> list[ase.Atoms]:
    """All structures of a file, or of text that was read from it at the structure `first_index`.

    Raises:
        DataError: if a structure cannot be parsed.
    """
    structures: list[ase.Atoms] = []
    try:
        structures.extend(ase.io.iread(source, index=":", format="extxyz"))
    except Exception as error:  # ASE's parser raises many kinds of exception on broken files.
        raise DataError(
            f"{file}, configuration {first_index + len(structures)}: not readable as extended XYZ "
            f"({error})"
        ) from error
    return structures


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Consecutive structures of an extended XYZ file."""

    file: str
    """Path as the user gave it."""
    first_byte: int
    end_byte: int
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
            text = file.read(self.end_byte - self.first_byte).decode()
        return read_frames(io.StringIO(text), self.file, first_index=self.first_index)


def file_parts(path: str | Path, *, largest: int) -> list[FilePart]:
    """Cut an extended XYZ file between structures.

    Args:
        largest: bytes of a part, unless one structure alone has more.

    Raises:
        DataError: if the file is missing, has another suffix, holds no structure, or a structure
            does not begin with its number of atoms.
    """
    check_readable(path)
    parts: list[FilePart] = []
    first_byte = first_index = end_byte = end_index = 0
    for index, (start, end) in enumerate(_frames(Path(path))):
        if end - first_byte > largest and index > first_index:
            parts.append(FilePart(str(path), first_byte, start, first_index, index - first_index))
            first_byte, first_index = start, index
        end_byte, end_index = end, index + 1
    if end_index == 0:
        raise DataError(f"{path}: found no structures")
    parts.append(FilePart(str(path), first_byte, end_byte, first_index, end_index - first_index))
    return parts


def _frames(path: Path) -> Iterator[tuple[int, int]]:
    """First byte and end of each structure; an empty line ends the file, as for ASE."""
    with path.open("rb") as file:
        index, start, line = 0, 0, file.readline()
        while line.strip():
            try:
                num_atoms = int(line)
            except ValueError:
                raise DataError(
                    f"{path}, configuration {index}: not readable as extended XYZ (found "
                    f"{line[:40]!r}, expected the number of atoms)"
                ) from None
            for _ in range(num_atoms + 1):
                file.readline()
            end, line = file.tell(), file.readline()
            while line.lstrip().startswith(b"VEC"):
                end, line = file.tell(), file.readline()
            yield start, end
            index, start = index + 1, end


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
