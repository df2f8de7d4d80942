"""Model files: weights as safetensors, everything else as JSON in its header; data, never code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mace_scf_jax.data.ase_formats import XYZ_SUFFIXES
from mace_scf_jax.files import Format
from mace_scf_jax.public_models import RELEASES, imported_names, model_file, name_and_head
from mace_scf_jax.registry import unknown_name


class ModelFileError(ValueError):
    """A file is not a complete model file that this version can read."""


MODEL = Format(name="mace-scf-jax model", noun="model file", error=ModelFileError)


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
        parameters: nested dictionaries of arrays.
        settings: what defines the model.
        record: how it was made; any JSON data.
    """
    entries = {"settings": settings.to_dict(), "record": dict(record)}
    MODEL.write(path, _flatten(parameters), entries)


def load_model_file(path: str | Path) -> ModelFile:
    """Read a model file.

    Args:
        path: of the file; or the name of a public model that was imported, of one of several
            heads ``NAME:HEAD``.

    Raises:
        ModelFileError: the file is missing, truncated, damaged, of another kind, or written by a
            newer version.
    """
    path = _of_public_model(str(path)) or path
    _refuse_habits(Path(path))
    content = MODEL.read(path)
    return ModelFile(
        parameters=_nest(content.arrays),
        settings=content.entries["settings"],
        record=content.entries["record"],
        checksum=content.checksum,
    )


def _of_public_model(text: str) -> Path | None:
    """The model file that a name stands for; None if it stands for none."""
    name, head = name_and_head(text)
    if name not in RELEASES or Path(text).exists():
        return None
    found = model_file(name, head)
    return found if found.exists() else None


def _refuse_habits(path: Path) -> None:
    """Tell those who give something else in place of a model file what to do here."""
    if path.suffix in XYZ_SUFFIXES:
        raise ModelFileError(
            f"{path}: a file of structures, no model file; commands take the model first: MODEL, "
            "then structures"
        )
    if path.is_file():
        with path.open("rb") as file:
            if file.read(2) in (b"PK", b"\x80\x02"):
                raise ModelFileError(
                    f"{path}: a file of PyTorch or NumPy, no model file; one is made of it by "
                    f"`mace-scf-jax import {path} OUT.model.safetensors`"
                )
    elif not path.suffix and path.parent == Path() and not path.exists():
        name, _ = name_and_head(str(path))
        known = RELEASES.get(name)
        if known is None:
            raise ModelFileError(
                f"{path}: no such model file, nor a public model: "
                f"{unknown_name('public model', name, RELEASES)}"
            )
        here = imported_names(name)
        if here:
            raise ModelFileError(
                f"{path}: no such public model is here; those that were imported are "
                f"{', '.join(here)}. `mace-scf-jax import {path} --trust` adds this one"
            )
        raise ModelFileError(
            f"{path}: this public model is not here yet; `mace-scf-jax import {path} --trust` "
            f"downloads it and makes its model file (licence: {known.licence.name}, "
            f"{known.licence.url})"
        )


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays by their path, joined with slashes."""
    flat: dict[str, np.ndarray] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = np.asarray(value)
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
