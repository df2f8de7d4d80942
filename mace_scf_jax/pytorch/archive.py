"""Archives of arrays with metadata: ``.npz`` files with a JSON string under ``meta``."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np


class ArchiveError(ValueError):
    """A file is not a complete archive of arrays with metadata."""


def read_archive(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and arrays of an archive.

    Args:
        path: an ``.npz`` file with a JSON string ``meta``.

    Raises:
        ArchiveError: the file is missing, unreadable or has no metadata.
    """
    path = Path(path)
    if not path.is_file():
        raise ArchiveError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ArchiveError(f"{path}: not a readable .npz file ({error})") from error
    if "meta" not in arrays:
        raise ArchiveError(f"{path}: expected a JSON string 'meta', found {sorted(arrays)}")
    try:
        meta = json.loads(str(arrays.pop("meta")))
    except json.JSONDecodeError as error:
        raise ArchiveError(f"{path}: 'meta' is not JSON ({error})") from error
    return meta, arrays


def with_prefix(arrays: dict[str, np.ndarray], *prefixes: str) -> dict[str, np.ndarray]:
    """Arrays whose names begin with one of the prefixes, without it."""
    return {
        name.removeprefix(prefix): values
        for prefix in prefixes
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
