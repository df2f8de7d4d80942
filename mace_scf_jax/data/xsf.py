"""Structures from XSF files, as ænet writes and reads them.

ASE's reader passes over the energy, which stands in a comment (``# total energy = -1.5 eV``), and
takes forces for Hartree/Å. Here energies are in eV and forces in eV/Å.

An energy is found by the key ``energy`` and forces by ``forces``; an energy that the comment calls
``cohesive`` by the key ``cohesive_energy``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, NoReturn

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.registry import nearest

SUFFIX = ".xsf"

_PERIODIC = {"CRYSTAL": 3, "SLAB": 2, "POLYMER": 1, "MOLECULE": 0}
"""Number of periodic directions, which are the first ones."""
_KEYWORDS = (
    *("ANIMSTEPS", *_PERIODIC, "DIM-GROUP"),
    *("PRIMVEC", "CONVVEC", "PRIMCOORD", "CONVCOORD", "ATOMS"),
)
_BLOCK, _END_OF_BLOCK = "BEGIN_", "END_"
_ENERGY = re.compile(r"#\s*(total|cohesive)\s+energy\s*[=:]\s*(\S+)\s*(\S*)", re.IGNORECASE)


class _Line(NamedTuple):
    """A line that is neither empty nor a comment."""

    number: int
    words: list[str]

    @property
    def keyword(self) -> str | None:
        """The keyword that it begins with."""
        word = self.words[0].upper()
        return word if word in _KEYWORDS or word.startswith(_BLOCK) else None


def read_xsf(path: str | Path) -> list[ase.Atoms]:
    """The structures of an XSF file: one, or those of an animation.

    Raises:
        DataError: the file cannot be understood; names the line, and what was expected there.
    """
    return _Reader(Path(path).read_bytes().decode("latin-1"), str(path)).structures()


def number_of_structures(path: str | Path) -> int:
    """How many structures an XSF file says that it holds, without reading them."""
    with Path(path).open(encoding="latin-1") as file:
        first = next((words for line in file if (words := _words(line))), [""])
    is_animation = first[0].upper() == "ANIMSTEPS" and first[1:2] and first[1].isdecimal()
    return int(first[1]) if is_animation else 1


def _words(line: str) -> list[str]:
    """Words of a line without its comment."""
    return line.partition("#")[0].split()


def _number(word: str) -> float | None:
    """A finite number, also with the exponent D of Fortran; None for anything else."""
    try:
        number = float(re.sub("[dD]", "e", word))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


class _Reader:
    """Goes through the lines of one file.

    Args:
        text: of the file.
        name: its path, for messages.
    """

    def __init__(self, text: str, name: str):
        numbered = list(enumerate(text.splitlines(), start=1))
        self._name = name
        self._lines = [_Line(number, words) for number, line in numbered if (words := _words(line))]
        self._place = 0
        self._energies = [
            (number, match)
            for number, line in numbered
            if (match := _ENERGY.match(line.strip())) is not None
        ]

    def structures(self) -> list[ase.Atoms]:
        """All structures, with energies and forces."""
        found: list[ase.Atoms] = []
        expected, periodic, cell = 1, 0, None
        while self._place < len(self._lines):
            line = self._next("a keyword")
            match line.keyword:
                case "ANIMSTEPS":
                    expected = self._whole_number(line, 1, "the number of structures")
                case "CRYSTAL" | "SLAB" | "POLYMER" | "MOLECULE" as keyword:
                    periodic = _PERIODIC[keyword]
                case "DIM-GROUP":
                    line = self._next("the number of periodic directions")
                    periodic = self._whole_number(line, 0, "0, 1, 2 or 3")
                case "PRIMVEC":
                    cell = [
                        self._numbers(line, 0, (3,)) for line in self._rows(3, "lattice vector")
                    ]
                case "CONVVEC":
                    self._rows(3, "conventional lattice vector")
                case "CONVCOORD":
                    self._rows(self._count(), "atom of the conventional cell")
                case "PRIMCOORD":
                    if periodic == 0 or cell is None:
                        self._refuse(line, "CRYSTAL, SLAB or POLYMER and PRIMVEC before it")
                    found.append(self._structure(self._rows(self._count(), "atom"), cell, periodic))
                case "ATOMS":
                    found.append(self._structure(self._rows_until_keyword(), None, 0))
                case None:
                    self._refuse(line, f"one of {', '.join(_KEYWORDS)}")
                case block:  # grids, which nobody reads here
                    self._skip_to(block.replace(_BLOCK, _END_OF_BLOCK, 1))
        if len(found) != expected:
            self._fail(
                f"found {len(found)} structures, expected "
                + ("one" if expected == 1 else f"{expected} (ANIMSTEPS)")
            )
        self._add_energies(found)
        return found

    def _next(self, expected: str) -> _Line:
        """The next line.

        Raises:
            DataError: there is none.
        """
        if self._place == len(self._lines):
            self._fail(f"the file ends where {expected} was expected")
        self._place += 1
        return self._lines[self._place - 1]

    def _rows(self, count: int, of_what: str) -> list[_Line]:
        return [self._next(f"{of_what} {number} of {count}") for number in range(1, count + 1)]

    def _rows_until_keyword(self) -> list[_Line]:
        rows = []
        while self._place < len(self._lines) and self._lines[self._place].keyword is None:
            rows.append(self._next("an atom"))
        return rows

    def _skip_to(self, end: str) -> None:
        while self._next(end).words[0].upper() != end:
            pass

    def _count(self) -> int:
        """Number of atoms, the first of two numbers on a line."""
        meaning = "the number of atoms"
        return self._whole_number(self._next(meaning), 0, meaning)

    def _structure(self, rows: list[_Line], cell: list | None, periodic: int) -> ase.Atoms:
        """The atoms of rows with an element, a position, and in all rows or none a force."""
        if not rows:
            self._fail("found a structure without atoms")
        numbers = [self._element(row) for row in rows]
        values = [self._numbers(row, 1, (3, 6)) for row in rows]
        for row in rows:
            if len(row.words) != len(rows[0].words):
                self._refuse(row, f"{len(rows[0].words) - 1} numbers as in the rows before")
        atoms = ase.Atoms(
            numbers,
            positions=[row[:3] for row in values],
            cell=cell,
            pbc=[direction < periodic for direction in range(3)],
        )
        if len(values[0]) == 6:
            forces = np.array([row[3:] for row in values])
            atoms.calc = SinglePointCalculator(atoms, forces=forces)
        return atoms

    def _add_energies(self, structures: list[ase.Atoms]) -> None:
        """Give the structures the energies of the comments, one each in their order."""
        for kind in ("total", "cohesive"):
            found = [entry for entry in self._energies if entry[1][1].lower() == kind]
            if found and len(found) != len(structures):
                self._fail(
                    f"found {len(found)} comments with a {kind} energy, expected one for each of "
                    f"{len(structures)} structures, or none"
                )
            for atoms, (number, match) in zip(structures, found, strict=False):
                _, value, unit = match.groups()
                energy = _number(value)
                if energy is None or unit.lower() not in ("", "ev"):
                    self._refuse(_Line(number, [value, unit]), "an energy in eV")
                if kind == "cohesive":
                    atoms.info["cohesive_energy"] = energy
                else:
                    forces = {} if atoms.calc is None else atoms.calc.results
                    atoms.calc = SinglePointCalculator(atoms, **forces, energy=energy)

    def _element(self, row: _Line) -> int:
        """Atomic number from a symbol in any case, or from itself."""
        word = row.words[0]
        number = int(word) if word.isdecimal() else atomic_numbers.get(word.capitalize(), 0)
        if not 0 < number < len(chemical_symbols):
            guess = nearest(word.capitalize().rstrip("0123456789+-_"), atomic_numbers)
            hint = "" if guess is None else f"; did you mean {guess}?"
            self._refuse(row, f"the symbol or number of an element first{hint}")
        return number

    def _numbers(self, line: _Line, first: int, how_many: tuple[int, ...]) -> list[float]:
        """The numbers from one word on."""
        numbers = [_number(word) for word in line.words[first:]]
        if len(numbers) not in how_many or None in numbers:
            self._refuse(line, f"{' or '.join(map(str, how_many))} numbers")
        return numbers

    def _whole_number(self, line: _Line, place: int, meaning: str) -> int:
        word = line.words[place] if place < len(line.words) else ""
        if not word.isdecimal():
            self._refuse(line, meaning)
        return int(word)

    def _refuse(self, line: _Line, expected: str) -> NoReturn:
        self._fail(f"line {line.number}: found {' '.join(line.words)!r}, expected {expected}")

    def _fail(self, why: str) -> NoReturn:
        raise DataError(f"{self._name}: not readable as XSF ({why})")
