"""Files of reference numbers: inputs, weights and expected outputs in one ``.npz``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mace_scf_jax.pytorch.archive import ArchiveError, read_archive, with_prefix


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


def read_reference_file(path: str | Path) -> ReferenceFile:
    """Read a reference file.

    Args:
        path: an ``.npz`` file with a JSON string ``meta`` and arrays ``in/…`` (or ``in_…``),
            ``out/…`` (or ``out_…``), ``state/…`` and ``grad/…``.

    Raises:
        ReferenceFileError: the file is missing, unreadable or has no metadata or outputs.
    """
    try:
        meta, arrays = read_archive(path)
    except ArchiveError as error:
        raise ReferenceFileError(str(error)) from error
    file = ReferenceFile(
        path=Path(path),
        meta=meta,
        inputs=with_prefix(arrays, "in/", "in_"),
        outputs=with_prefix(arrays, "out/", "out_"),
        state=with_prefix(arrays, "state/"),
        gradients=with_prefix(arrays, "grad/"),
    )
    if not file.outputs:
        raise ReferenceFileError(f"{path}: expected arrays 'out/…', found {sorted(arrays)}")
    return file
