"""The exception of the data layer, and where in the input it was raised."""

from __future__ import annotations

import dataclasses


class DataError(ValueError):
    """Input data or its description cannot be used as given."""


@dataclasses.dataclass(frozen=True)
class Location:
    """Which configuration of which file a value came from."""

    file: str | None
    """Path as the user gave it; None for structures that were not read from a file."""
    index: int
    """Position in the file or list, from 0."""

    def __str__(self) -> str:
        if self.file is None:
            return f"structure {self.index}"
        return f"{self.file}, configuration {self.index}"


NO_FILE = Location(None, 0)
"""Location of a single structure that was not read from a file."""
