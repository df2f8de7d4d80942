"""Reading labelled structures from extended XYZ, XSF and other files, whole or in parts.

A path means a file, all files that match a pattern (``xsf/*.xsf``), or a folder of XSF files.
Extended XYZ and XSF are read here, with what is said about what is wrong in them; the rest by ASE.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ase

from mace_scf_jax.data import xsf
from mace_scf_jax.data.ase_formats import XYZ_SUFFIXES, read_with_ase
from mace_scf_jax.data.cells import MINIMUM_OPEN_CELL, CellRule
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.extended_xyz import Frame, frames, structures_in
from mace_scf_jax.data.keys import KeySpecification

logger = logging.getLogger("mace_scf_jax")

PREPROCESSED = ".h5"
"""Suffix of preprocessed structures."""


class ReadStructures(NamedTuple):
    """Structures as ASE reads them, and where each came from."""

    atoms: list[ase.Atoms]
    locations: list[Location]


def read_atoms(path: str | Path) -> list[ase.Atoms]:
    """All structures of a file, of a folder of XSF files, or of the files that match a pattern.

    Raises:
        DataError: if a file is missing, has an unknown suffix, is empty or cannot be parsed.
    """
    return read_located(path).atoms


def read_located(path: str | Path) -> ReadStructures:
    """The same with the file of each structure and its position there.

    Raises:
        DataError: if a file is missing, has an unknown suffix, is empty or cannot be parsed.
    """
    read = ReadStructures([], [])
    for file in files_of(path):
        if _is_extended_xyz(file):
            found = structures_in(Path(file).read_bytes(), name=file)
        else:
            found = xsf.read_xsf(file) if _is_xsf(file) else read_with_ase(file)
        if not found:
            raise DataError(f"{file}: found no structures")
        read.atoms.extend(found)
        read.locations.extend(Location(file, index) for index in range(len(found)))
    return read


def files_of(path: str | Path) -> list[str]:
    """The files that a path means, those of a folder or pattern in the order of their names.

    Raises:
        DataError: there is none.
    """
    if Path(path).is_dir():
        files = _matching(Path(path), f"*{xsf.SUFFIX}")
        if not files:
            raise DataError(f"{path}: found no {xsf.SUFFIX} file in this folder")
    elif is_pattern(path):
        files = sorted(glob.glob(str(path)))
        if not files:
            raise DataError(f"{path}: found no file that matches")
    else:
        files = [str(path)]
    for file in files:
        if not Path(file).is_file():
            raise DataError(f"{file}: no such file")
    return files


def is_there(path: str | Path) -> bool:
    """Whether a path is that of a file or folder, or a pattern that some file matches."""
    return Path(path).exists() or (is_pattern(path) and bool(glob.glob(str(path))))


def is_pattern(path: str | Path) -> bool:
    """Whether a path stands for all files that match it: no file has this name itself."""
    return glob.has_magic(str(path)) and not Path(path).exists()


def holds_xsf(path: str | Path) -> bool:
    """Whether a path is a folder of XSF files."""
    return Path(path).is_dir() and bool(_matching(Path(path), f"*{xsf.SUFFIX}"))


def is_stored(path: str | Path) -> bool:
    """Whether a path means preprocessed data: a folder without XSF files, or a .h5 file."""
    return Path(path).suffix == PREPROCESSED or (Path(path).is_dir() and not holds_xsf(path))


def _matching(folder: Path, pattern: str) -> list[str]:
    return sorted(str(file) for file in folder.glob(pattern))


def _is_extended_xyz(file: str | Path) -> bool:
    return Path(file).suffix in XYZ_SUFFIXES


def _is_xsf(file: str | Path) -> bool:
    return Path(file).suffix == xsf.SUFFIX


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

    def read(self) -> ReadStructures:
        """The structures, as ASE reads them.

        Raises:
            DataError: if they cannot be parsed.
        """
        with Path(self.file).open("rb") as file:
            file.seek(self.first_byte)
            data = file.read(self.end_byte - self.first_byte)
        found = structures_in(
            data, name=self.file, first_index=self.first_index, first_line=self.first_line
        )
        places = range(self.first_index, self.first_index + len(found))
        return ReadStructures(found, [Location(self.file, place) for place in places])


@dataclasses.dataclass(frozen=True)
class WholeFiles:
    """Files of other formats than extended XYZ."""

    files: tuple[str, ...]
    count: int
    """Number of structures in all of them."""

    def read(self) -> ReadStructures:
        """The structures.

        Raises:
            DataError: if they cannot be parsed.
        """
        read = ReadStructures([], [])
        for file in self.files:
            for kept, found in zip(read, read_located(file), strict=True):
                kept.extend(found)
        return read


Part = FilePart | WholeFiles
"""Structures that are read together."""


def parts_of(path: str | Path, *, largest: int) -> list[Part]:
    """Cut what a path means between structures.

    Args:
        path: a file, a folder of XSF files, or a pattern.
        largest: bytes of a part, unless one structure (of other formats than extended XYZ, one
            file) alone has more.

    Raises:
        DataError: if a file is missing, cannot be read or holds no structure, or a structure of
            extended XYZ does not begin with its number of atoms.
    """
    parts: list[Part] = []
    together: list[str] = []
    for file in files_of(path):
        if _is_extended_xyz(file):
            parts += file_parts(file, largest=largest)
            continue
        if together and sum(Path(it).stat().st_size for it in (*together, file)) > largest:
            parts.append(_whole(together))
            together = []
        together.append(file)
    return parts + ([_whole(together)] if together else [])


def _whole(files: Sequence[str]) -> WholeFiles:
    counts = (
        xsf.number_of_structures(file) if _is_xsf(file) else len(read_with_ase(file))
        for file in files
    )
    return WholeFiles(tuple(files), sum(counts))


def file_parts(path: str | Path, *, largest: int) -> list[FilePart]:
    """Cut an extended XYZ file between structures.

    Args:
        largest: bytes of a part, unless one structure alone has more.

    Raises:
        DataError: if the file holds no structure, or a structure does not begin with its number of
            atoms.
    """
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
    structures: ReadStructures,
    keys: KeySpecification,
    *,
    multipoles_max_l: int,
    config_type_weights: Mapping[str, float] | None = None,
) -> list[Configuration]:
    """Configurations of structures from files.

    Args:
        structures: as `read_located` gives them.
        keys: which key of the files holds which property.
        multipoles_max_l: highest order of reference multipoles to keep.
        config_type_weights: factor on the weight of a configuration by its `config_type`.

    Raises:
        DataError: if a structure cannot be used.
    """
    return [
        from_atoms(
            atoms,
            keys=keys,
            multipoles_max_l=multipoles_max_l,
            config_type_weights=config_type_weights,
            location=location,
            read_calculator=True,
        )
        for atoms, location in zip(*structures, strict=True)
    ]


def warn_about(
    configurations: Sequence[Configuration],
    keys: KeySpecification,
    file: str,
    *,
    occurring: Iterable[str] = (),
) -> None:
    """Warn, once per file, about labels that are nowhere and cells that were changed.

    Args:
        occurring: names of the keys that there are.
    """
    warn_about_missing_labels(
        frozenset().union(*(entry.present for entry in configurations)), keys, file, occurring
    )
    warn_about_adjusted_cells(
        [entry.cell_rule for entry in configurations if not entry.pbc.any()], file
    )


def warn_about_missing_labels(
    present: Container[str], keys: KeySpecification, file: str, occurring: Iterable[str] = ()
) -> None:
    """Warn about mapped energies or forces that are not among the properties of a file."""
    known = f"; keys that occur: {', '.join(sorted(occurring))}" if occurring else ""
    for name in ("energy", "forces"):
        key = keys.key_of(name)
        if key is not None and name not in present:
            logger.warning("%s: no configuration has %s (key %r)%s", file, name, key, known)


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
