"""The text of extended XYZ files: where structures begin and end, and ASE structures from it.

ASE's parser does the work. What it would pass over in silence is handled here: structures behind an
empty line, periodic directions that are no truth values, keys given twice, isotopes of hydrogen.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ase
import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.registry import nearest

logger = logging.getLogger("mace_scf_jax")

ISOTOPES = {"D": 2.01410177812, "T": 3.01604927790}
"""Mass in u of the isotopes of hydrogen that have a symbol."""

_SPECIES = "species_as_written"
"""Array that holds the symbols of a file until they are understood."""
_TRUTH_VALUES = {"t": "T", "true": "T", "1": "T", "f": "F", "false": "F", "0": "F"}
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^\]]*\]")
_KEY = re.compile(r"(?:^|\s)([^\s=]+)\s*=")


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where the text of one structure is."""

    first_byte: int
    end_byte: int
    line: int
    """Number of its first line, from 1."""


def frames(file: io.BufferedIOBase, *, name: str) -> Iterator[Frame]:
    """Find the structures of a file without parsing them; empty lines between them do not count.

    Args:
        file: from its beginning.
        name: path of the file, for messages.

    Raises:
        DataError: a structure does not begin with its number of atoms; names the line.
    """
    number, index, line = 1, 0, file.readline()
    while line:
        start = file.tell() - len(line)
        if not line.strip():
            number, line = number + 1, file.readline()
            continue
        try:
            num_atoms = int(line.removeprefix(codecs.BOM_UTF8))
        except ValueError:
            raise DataError(
                f"{Location(name, index)}: not readable as extended XYZ (line {number}: found "
                f"{line[:40]!r}, expected the number of atoms)"
            ) from None
        lines = 1 + sum(bool(file.readline()) for _ in range(num_atoms + 1))
        end, line = file.tell(), file.readline()
        while line.lstrip().startswith(b"VEC"):
            lines, end, line = lines + 1, file.tell(), file.readline()
        yield Frame(start, end, number)
        number, index = number + lines, index + 1


def structures_in(
    data: bytes, *, name: str, first_index: int = 0, first_line: int = 1
) -> list[ase.Atoms]:
    """The structures that a text holds.

    Symbols may be those of the elements in any case, or D and T, which are hydrogen with a mass of
    their own. What is not UTF-8 is read as Latin-1.

    Args:
        data: the text, from the beginning of a structure.
        name: path of the file, for messages.
        first_index: position of the first structure in the file.
        first_line: number of its first line in the file.

    Raises:
        DataError: a structure cannot be parsed; names file, position and line.
    """
    found = list(frames(io.BytesIO(data), name=name))
    encoding = _encoding(data, name)
    text = io.StringIO(
        "".join(_with_comment(data[f.first_byte : f.end_byte].decode(encoding)) for f in found)
    )
    structures: list[ase.Atoms] = []
    try:
        for atoms in read_xyz(text, index=slice(None), properties_parser=_properties):
            structures.append(_with_elements(atoms))
    except Exception as error:  # ASE's parser raises many kinds of exception on broken files.
        bad = len(structures)
        raise DataError(
            f"{Location(name, first_index + bad)}: not readable as extended XYZ ({error}; the "
            f"structure begins in line {first_line - 1 + found[bad].line})"
        ) from error
    isotopes = sum("masses" in atoms.arrays and _has_isotopes(atoms) for atoms in structures)
    if isotopes:
        logger.warning("%s: D and T in %d structures are read as H of their mass", name, isotopes)
    return structures


def _encoding(data: bytes, name: str) -> str:
    """UTF-8, or Latin-1 with a warning."""
    try:
        data.decode()
    except UnicodeDecodeError:
        logger.warning("%s: is not UTF-8, and read as Latin-1", name)
        return "latin-1"
    return "utf-8-sig"


def _with_comment(text: str) -> str:
    """The text of one structure, with a comment line that names the columns if it is empty."""
    head, _, rest = text.partition("\n")
    comment, _, atoms = rest.partition("\n")
    if not comment.strip():
        comment = "Properties=species:S:1:pos:R:3"
    return f"{head}\n{comment}\n{atoms}" + ("" if atoms.endswith("\n") else "\n")


def _properties(comment: str) -> dict[str, Any]:
    """What the comment line of a structure says, as ASE reads it.

    Raises:
        ValueError: a key is given twice, or ``pbc`` is no truth values.
    """
    twice = [
        key for key, count in Counter(_KEY.findall(_QUOTED.sub("…", comment))).items() if count > 1
    ]
    if twice:
        raise ValueError(f"the key {twice[0]!r} is given twice")
    properties = key_val_str_to_dict(comment)
    if isinstance(properties.get("pbc"), str):
        words = [_TRUTH_VALUES.get(word.lower()) for word in properties["pbc"].split()]
        if len(words) not in (1, 3) or None in words:
            raise ValueError(f"pbc: found {properties['pbc']!r}, expected three of T and F")
        properties["pbc"] = [word == "T" for word in words]
    columns = properties.get("Properties", "species:S:1:pos:R:3")
    properties["Properties"] = re.sub(r"(^|:)species:S:1", rf"\1{_SPECIES}:S:1", columns)
    return properties


def _with_elements(atoms: ase.Atoms) -> ase.Atoms:
    """The structure with the elements of its symbols.

    Raises:
        ValueError: a symbol is that of no element; names the nearest and the atom.
    """
    if _SPECIES not in atoms.arrays:
        return atoms
    symbols = [symbol.capitalize() for symbol in atoms.arrays.pop(_SPECIES)]
    masses = [ISOTOPES.get(symbol) for symbol in symbols]
    symbols = ["H" if symbol in ISOTOPES else symbol for symbol in symbols]
    for place, symbol in enumerate(symbols):
        if symbol not in atomic_numbers:
            guess = nearest(symbol.rstrip("0123456789+-_"), atomic_numbers)
            hint = "" if guess is None else f"; did you mean {guess}?"
            raise ValueError(
                f"found the symbol {symbol!r} of atom {place}, which no element has{hint}"
            )
    atoms.set_chemical_symbols(symbols)
    if atoms.calc is not None:  # what was read with the structure is still that of the structure
        atoms.calc.atoms = atoms.copy()
    if any(masses):
        own = atoms.get_masses()
        atoms.set_masses([own[i] if mass is None else mass for i, mass in enumerate(masses)])
    return atoms


def _has_isotopes(atoms: ase.Atoms) -> bool:
    return bool(np.isin(atoms.arrays["masses"], list(ISOTOPES.values())).any())
