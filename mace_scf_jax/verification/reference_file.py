"""Files of reference numbers: inputs, weights and expected outputs in one ``.npz``."""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np


class ReferenceFileError(ValueError):
    """A file is not in the reference format."""


@dataclasses.dataclass(frozen=True)
class ReferenceFile:
    """The content of one reference file; arrays by name without their prefix."""

    path: Path
    meta: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    """Weights by PyTorch state-dict name."""
    gradients: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Gradient of a loss by PyTorch state-dict name, in files about training."""

    @property
    def kind(self) -> str:
        """What the file is about: electrostatics, training, fixed_point, models or blocks."""
        if "sigma" in self.meta:
            return "electrostatics"
        if self.gradients:
            return "training"
        if self.meta.get("model") == "FixedPoint":
            return "fixed_point"
        return "models" if "model" in self.meta else "blocks"


def _with_prefix(arrays: dict[str, np.ndarray], *prefixes: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): value
        for prefix in prefixes
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def read_reference_file(path: str | Path) -> ReferenceFile:
    """Read a reference file.

    Args:
        path: an ``.npz`` file with a JSON string ``meta`` and arrays ``in/…`` (or ``in_…``),
            ``out/…`` (or ``out_…``), ``state/…`` and ``grad/…``.

    Raises:
        ReferenceFileError: the file is missing, unreadable or has no metadata or outputs.
    """
    path = Path(path)
    if not path.is_file():
        raise ReferenceFileError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ReferenceFileError(f"{path}: not a readable .npz file ({error})") from error
    if "meta" not in arrays:
        raise ReferenceFileError(f"{path}: expected a JSON string 'meta', found {sorted(arrays)}")
    try:
        meta = json.loads(str(arrays.pop("meta")))
    except json.JSONDecodeError as error:
        raise ReferenceFileError(f"{path}: 'meta' is not JSON ({error})") from error
    file = ReferenceFile(
        path=path,
        meta=meta,
        inputs=_with_prefix(arrays, "in/", "in_"),
        outputs=_with_prefix(arrays, "out/", "out_"),
        state=_with_prefix(arrays, "state/"),
        gradients=_with_prefix(arrays, "grad/"),
    )
    if not file.outputs:
        raise ReferenceFileError(f"{path}: expected arrays 'out/…', found {sorted(arrays)}")
    return file
