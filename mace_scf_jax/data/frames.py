"""Where the structures of an extended XYZ file are, found without parsing them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import ase

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reading import check_readable, read_frames


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
        path: of the file.
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
