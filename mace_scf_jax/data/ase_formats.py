"""Files of structures in the formats that ASE knows, by name or, where it reads, by content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mace_scf_jax.data.errors import DataError

if TYPE_CHECKING:
    import ase

EXTENDED_XYZ = "extxyz"
"""Format that holds whatever a structure has."""
XYZ_SUFFIXES = (".xyz", ".extxyz")
"""Of files that are read as extended XYZ."""


def read_with_ase(path: str | Path, index: str | int = ":") -> list[ase.Atoms]:
    """Structures of a file; energies, forces, … that it holds are results of a calculator.

    Args:
        path: of a file that is there.
        index: which ones; by default all.

    Raises:
        DataError: ASE knows no such format, or stumbles upon what is in the file.
    """
    import ase.io  # slow to import
    import ase.io.formats

    path = Path(path)
    try:
        found = ase.io.read(path, index=index)
    except ase.io.formats.UnknownFileTypeError:
        raise DataError(
            f"{path}: found suffix {path.suffix!r}, expected .xyz, .extxyz, .xsf or that of a "
            "format that ASE reads"
        ) from None
    except Exception as error:  # whatever a reader of ASE stumbles upon
        raise DataError(f"{path}: ASE cannot read it ({type(error).__name__}: {error})") from None
    return found if isinstance(found, list) else [found]


def format_to_write(path: str | Path, *, several: bool = False) -> str:
    """What ASE calls the format of a file to be written, by its suffix.

    Args:
        path: of the file.
        several: whether it is to hold several structures.

    Raises:
        DataError: ASE knows no format of this suffix, or cannot write it so.
    """
    import ase.io.formats  # slow to import

    try:
        name = ase.io.formats.filetype(str(path), read=False)
        known = ase.io.formats.ioformats[name]
    except (ase.io.formats.UnknownFileTypeError, KeyError):
        raise DataError(
            f"{path}: found suffix {Path(path).suffix!r}, of which ASE knows no format"
        ) from None
    if not known.can_write:
        raise DataError(f"{path}: ASE cannot write the format {name}")
    if several and (known.single or not known.acceptsfd):
        raise DataError(
            f"{path}: files of the format {name} hold one structure, expected a format for several "
            "such as .xyz, .traj or .pdb"
        )
    return name
