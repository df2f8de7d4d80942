"""Files of reference numbers, one ``.npz`` each, and how far computed ones deviate from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from mace_scf_jax.pytorch.files import ArchiveError, read_archive, with_prefix


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


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest deviation of one output from its reference."""

    output: str
    absolute: float
    """Largest absolute deviation."""
    relative: float
    """Largest absolute deviation over the largest reference magnitude."""
    tolerance: float
    """Largest relative deviation allowed."""
    floor: float
    """Absolute deviation that always passes (for references that are zero up to round-off)."""

    @property
    def passed(self) -> bool:
        """Whether the deviation is within its tolerance; NaN never is."""
        return bool(self.relative <= self.tolerance or self.absolute <= self.floor)


def deviation(
    output: str,
    computed: np.ndarray | Array,
    expected: np.ndarray,
    *,
    tolerance: float,
    floor: float = 1e-12,
) -> Deviation:
    """Compare one output with its reference.

    Args:
        output: its name.
        computed: what we compute.
        expected: the reference, of the same shape.
        tolerance: largest relative deviation allowed.
        floor: absolute deviation that always passes.

    Raises:
        ValueError: the shapes differ.
    """
    computed, expected = np.asarray(computed), np.asarray(expected)
    if computed.shape != expected.shape:
        raise ValueError(f"{output}: expected shape {expected.shape}, computed {computed.shape}")
    if expected.size == 0:
        return Deviation(output, 0.0, 0.0, tolerance, floor)
    absolute = float(np.max(np.abs(computed - expected)))
    magnitude = float(np.max(np.abs(expected)))
    relative = absolute / magnitude if magnitude > 0 else (0.0 if absolute == 0 else np.inf)
    return Deviation(output, absolute, relative, tolerance, floor)
