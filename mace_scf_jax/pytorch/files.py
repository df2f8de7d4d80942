"""Files of PyTorch models: archives of arrays, and what ``torch.save`` writes."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.pytorch.module import (
    TorchModel,
    TorchModelError,
    load_torch_file,
    save_torch_file,
)


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
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
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


STATE = "state/"
"""Start of the names of weights in an archive."""
SUFFIXES = (".npz", ".pt")
"""Kinds of files that are written."""


def read_torch_model(path: str | Path, *, trust: bool = False) -> TorchModel:
    """Read a PyTorch model.

    Args:
        path: an ``.npz`` archive of arrays ``state/<name>`` with the configuration in ``meta``; or
            anything that ``torch.save`` wrote: a whole module, or a state dict with its
            configuration as `write_torch_model` writes it. Only the second kind needs PyTorch, and
            a whole module the packages it was made with.
        trust: read whole modules too: reading them runs code that is in the file.

    Raises:
        TorchModelError: the file is missing or damaged, holds no such model, needs `trust`, or
            PyTorch is absent.
    """
    path = Path(path)
    if path.suffix != ".npz":
        return load_torch_file(path, trust=trust)
    try:
        configuration, arrays = read_archive(path)
    except ArchiveError as error:
        raise TorchModelError(str(error)) from error
    state = with_prefix(arrays, STATE)
    if not state:
        raise TorchModelError(f"{path}: expected arrays '{STATE}…', found {sorted(arrays)[:5]}")
    return TorchModel(configuration, state)


def write_torch_model(path: str | Path, model: TorchModel) -> None:
    """Write a state dict with its configuration.

    Args:
        path: ``.npz``, or ``.pt`` for ``torch.load(path, weights_only=True)``, which gives a
            dictionary with the entries ``configuration`` and ``state_dict``.
        model: what to write.

    Raises:
        TorchModelError: another suffix, or PyTorch is absent where it is needed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise TorchModelError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}")
    if path.suffix == ".pt":
        save_torch_file(path, model)
        return
    arrays = {f"{STATE}{name}": values for name, values in model.state.items()}
    np.savez(path, meta=json.dumps(model.configuration), **arrays)
