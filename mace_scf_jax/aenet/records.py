"""Potentials of ænet as Fortran writes them unformatted, ``<name>.<element>.nn``."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.io import FortranEOFError, FortranFile, FortranFormattingError

from mace_scf_jax.aenet.items import refuse

FIRST_BYTES = np.int32(4).tobytes()
"""Of every such file: the size of its first record, one whole number."""
_SYMBOL = 2
"""Bytes of the symbol of an element."""


class RecordItems:
    """Items of a binary file, one record each.

    Args:
        path: of the file.
    """

    def __init__(self, path: str):
        self.path = path
        self._file = FortranFile(path)

    def __enter__(self) -> RecordItems:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def integers(self, item: int, name: str, count: int) -> list[int]:
        """Return whole numbers."""
        return self._array(item, name, count, np.dtype(np.int32)).tolist()

    def floats(self, item: int, name: str, count: int) -> Float[np.ndarray, "count"]:
        """Return finite numbers."""
        values = self._array(item, name, count, np.dtype(np.float64))
        if not np.all(np.isfinite(values)):
            wrong = values[~np.isfinite(values)][0]
            refuse(self.path, item, name, f"expected {count} finite numbers, found {wrong}")
        return values

    def words(self, item: int, name: str, count: int) -> list[str]:
        """Return texts without spaces, all of the same length in the file."""
        record = self._record(item, name)
        if len(record) < count * _SYMBOL or len(record) % count:
            refuse(self.path, item, name, f"expected {count} words, found {len(record)} bytes")
        size = len(record) // count
        parts = [record[first : first + size] for first in range(0, len(record), size)]
        return [_decoded(part) for part in parts]

    def text(self, item: int, name: str) -> str:
        """Return a text."""
        return _decoded(self._record(item, name))

    def flag(self, item: int, name: str) -> bool:
        """Return a truth value."""
        return self.integers(item, name, 1) != [0]

    def end(self) -> None:
        """Refuse a file that goes on."""
        try:
            record = self._file.read_record(np.uint8)
        except FortranEOFError:
            return
        except (FortranFormattingError, ValueError):
            record = np.zeros(0)
        refuse(
            self.path,
            36,
            "energies per atom",
            f"expected it to be the last record, found one more of {len(record)} bytes",
        )

    def _record(self, item: int, name: str) -> bytes:
        try:
            return self._file.read_record(np.uint8).tobytes()
        except FortranEOFError:
            refuse(self.path, item, name, "expected a record, found the end of the file")
        except (FortranFormattingError, ValueError) as error:
            refuse(self.path, item, name, f"expected a whole record, found a damaged one ({error})")

    def _array(self, item: int, name: str, count: int, dtype: np.dtype) -> np.ndarray:
        record = self._record(item, name)
        if len(record) != count * dtype.itemsize:
            refuse(
                self.path,
                item,
                name,
                f"expected {count} numbers of {dtype.itemsize} bytes, found {len(record)} bytes",
            )
        return np.frombuffer(record, dtype).copy()


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace").strip("\0 ")
