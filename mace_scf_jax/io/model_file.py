"""Model files: weights as safetensors, everything else as JSON in its header; data, never code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import safetensors
import safetensors.numpy

FORMAT = "mace-scf-jax model"
FORMAT_VERSION = 1


class ModelFileError(ValueError):
    """A file is not a complete model file that this version can read."""


@runtime_checkable
class Settings(Protocol):
    """What a model file asks of settings."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The content of a model file."""

    parameters: dict[str, Any]
    """Nested dictionaries of NumPy arrays."""
    settings: dict[str, Any]
    """What defines the model, as plain data."""
    record: dict[str, Any]
    """How the model was made."""
    checksum: str
    """SHA-256 of parameters, settings and record, hexadecimal; it has been verified."""


def save_model(
    path: str | Path, parameters: Mapping[str, Any], settings: Settings, record: Mapping[str, Any]
) -> None:
    """Write a model file; an existing one is replaced only by a complete new one.

    Args:
        path: the file.
        parameters: nested dictionaries of arrays.
        settings: what defines the model.
        record: how it was made; any JSON data.
    """
    tensors = _flatten(parameters)
    texts = {"settings": json.dumps(settings.to_dict()), "record": json.dumps(dict(record))}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        **texts,
        "sha256": _checksum(tensors, texts),
    }
    content = safetensors.numpy.save(tensors, metadata=metadata)
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_model_file(path: str | Path) -> ModelFile:
    """Read a model file.

    Args:
        path: the file.

    Raises:
        ModelFileError: the file is missing, truncated, damaged, of another kind, or written by a
            newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ModelFileError(
                    f"{path}: expected a model file of mace-scf-jax, found a safetensors file "
                    f"with the format {metadata.get('format')!r}"
                )
            version = _entry(path, metadata, "format_version", int)
            if version > FORMAT_VERSION:
                raise ModelFileError(
                    f"{path}: written in format version {version}, this version of mace-scf-jax "
                    f"reads up to {FORMAT_VERSION}; please upgrade mace-scf-jax"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a complete model file ({error})") from error
    settings = _entry(path, metadata, "settings", json.loads)
    record = _entry(path, metadata, "record", json.loads)
    texts = {name: metadata[name] for name in ("settings", "record")}
    checksum = _checksum(tensors, texts)
    if metadata.get("sha256") != checksum:
        raise ModelFileError(f"{path}: damaged file, its contents do not match their checksum")
    return ModelFile(parameters=_nest(tensors), settings=settings, record=record, checksum=checksum)


def _entry(path: Path, metadata: Mapping[str, str], name: str, read: Callable[[str], Any]) -> Any:
    """One entry of the header."""
    try:
        return read(metadata[name])
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{path}: damaged file, no readable {name!r} in its header") from error


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays by their path, joined with slashes."""
    flat: dict[str, np.ndarray] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = np.ascontiguousarray(value)
    return flat


def _nest(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `_flatten`."""
    nested: dict[str, Any] = {}
    for path, value in tensors.items():
        *parents, name = path.split("/")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[name] = value
    return nested


def _checksum(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(f"{name} {texts[name]}\n".encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
