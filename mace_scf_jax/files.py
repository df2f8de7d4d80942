"""Files that are whole or not there, and the envelope of everything that the package keeps in them.

An envelope says what kind of file it is, in which version of its format, and has a checksum::

    safetensors   arrays by name; in the header ``format``, ``format_version``, ``sha256`` and
                  entries, each a JSON text: data, never code
    JSON          an object of ``format``, ``format_version``, the entries, and ``sha256``
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy


@contextlib.contextmanager
def write_whole(path: str | Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Give a path to write to; what is there in the end takes the place of `path`, all or nothing.

    It is flushed to the disk before it takes this place, so that a file under its final name is
    complete even if the process is killed or the machine stops at any moment.

    Args:
        keep: name under which the file that was there before is kept, if there was one.

    Raises:
        OSError: the file cannot be written, and what was there before is intact.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        flush(partial)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a whole file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Content:
    """What an envelope holds."""

    arrays: dict[str, np.ndarray]
    entries: dict[str, Any]
    """JSON values by name."""
    checksum: str
    """SHA-256 of arrays and entries, hexadecimal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of files.

    Attributes:
        name: that the files carry.
        noun: what a file is, for messages.
        version: that is written, the newest that can be read.
        sha256_since: first version with a SHA-256; of those before, checkpoints have a CRC-32.
        error: what is raised for files that cannot be read.
    """

    name: str
    noun: str
    version: int = 1
    sha256_since: int = 1
    error: type[ValueError] = ValueError

    def write(
        self,
        path: str | Path,
        arrays: Mapping[str, np.ndarray],
        entries: Mapping[str, Any],
        *,
        keep: Path | None = None,
    ) -> None:
        """Write a safetensors file.

        Args:
            arrays: by name.
            entries: JSON values by name.
            keep: as for `write_whole`.

        Raises:
            TypeError: an entry is no JSON value; nothing was written.
            OSError: the file cannot be written, and what was there before is intact.
        """
        arrays = {name: np.asarray(values, order="C") for name, values in arrays.items()}
        texts = {name: json.dumps(value) for name, value in entries.items()}
        metadata = {
            "format": self.name,
            "format_version": str(self.version),
            **texts,
            "sha256": _sha256(arrays, texts),
        }
        # Through memory: `save_file` gives files that only their owner may read.
        content = safetensors.numpy.save(arrays, metadata=metadata)
        with write_whole(path, keep=keep) as partial:
            partial.write_bytes(content)

    def read(self, path: str | Path) -> Content:
        """Read a safetensors file.

        Raises:
            ValueError: of the class `error`: the file is missing, truncated, damaged, of another
                kind, or written by a newer version.
        """
        self._require(path)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                self._check_format(path, metadata)
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise self.error(f"{path}: not a complete {self.noun} ({error})") from error
        texts = {
            name: text for name, text in metadata.items() if name not in (*_ENVELOPE, *_FIRST_NAMES)
        }
        entries = {name: self._parse(path, name, text) for name, text in texts.items()}
        checksum = _sha256(arrays, texts)
        if metadata.get("sha256") != checksum and not self._is_old_and_whole(metadata, arrays):
            raise self._damaged(path)
        return Content(arrays, entries, checksum)

    def write_json(self, path: str | Path, entries: Mapping[str, Any]) -> None:
        """Write a JSON file.

        Raises:
            OSError: the file cannot be written, and what was there before is intact.
        """
        texts = {name: json.dumps(value) for name, value in entries.items()}
        content = {"format": self.name, "format_version": self.version, **entries}
        text = json.dumps(content | {"sha256": _sha256({}, texts)}, indent=2)
        with write_whole(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def read_json(self, path: str | Path) -> dict[str, Any]:
        """The entries of a JSON file.

        Raises:
            ValueError: of the class `error`; see `read`.
        """
        self._require(path)
        try:
            content = dict(json.loads(Path(path).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise self.error(f"{path}: not a complete {self.noun} ({error})") from error
        self._check_format(path, content)
        entries = {name: value for name, value in content.items() if name not in _ENVELOPE}
        checksum = _sha256({}, {name: json.dumps(value) for name, value in entries.items()})
        if content.get("sha256") != checksum and not self._is_old_and_whole(content, {}):
            raise self._damaged(path)
        return entries

    def _require(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise self.error(f"{path}: no such {self.noun}")

    def _check_format(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        found = metadata.get("format")
        if found != self.name:
            raise self.error(
                f"{path}: expected a {self.noun} of mace-scf-jax, found a file with the format "
                f"{found!r}"
            )
        try:
            version = self._version(metadata)
        except (KeyError, ValueError, TypeError) as error:
            raise self._damaged(path, "format_version") from error
        if version > self.version:
            raise self.error(
                f"{path}: written in format version {version}, this version of mace-scf-jax reads "
                f"up to {self.version}; please upgrade mace-scf-jax"
            )

    def _version(self, metadata: Mapping[str, Any]) -> int:
        """The version of a file; the first one of some kinds is called otherwise or not told."""
        if self.sha256_since > 1 and "format_version" not in metadata:
            return int(metadata.get("version", 1))
        return int(metadata["format_version"])

    def _is_old_and_whole(
        self, metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> bool:
        """Whether a file is from before there was a SHA-256, and agrees with its CRC-32 if any."""
        if self._version(metadata) >= self.sha256_since:
            return False
        return "checksum" not in metadata or int(metadata["checksum"]) == _crc32(
            arrays, metadata.get("record", "")
        )

    def _parse(self, path: str | Path, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._damaged(path, name) from error

    def _damaged(self, path: str | Path, name: str | None = None) -> ValueError:
        reason = "its contents do not match their checksum"
        if name is not None:
            reason = f"no readable {name!r} in its header"
        return self.error(f"{path}: damaged file, {reason}")


_ENVELOPE = ("format", "format_version", "sha256")
"""Names that are no entries."""
_FIRST_NAMES = ("version", "checksum")
"""What version and CRC-32 are called in the first version of checkpoints."""


def _sha256(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """SHA-256 of texts and arrays in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(f"{name} {texts[name]}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _crc32(arrays: Mapping[str, np.ndarray], record: str) -> int:
    """CRC-32 of the record and of all arrays in the order of their names."""
    value = zlib.crc32(record.encode())
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), value)
    return value
