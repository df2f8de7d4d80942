"""Dense coupling tensors of the PyTorch package MACE, from reference files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

BLOCKS = Path(__file__).parents[1] / "data" / "reference" / "blocks"


def reference_tensors(name: str) -> dict[tuple[int, int], np.ndarray]:
    """Tensors U of a product basis by (degree, order), [2l + 1, M, …, M, paths]."""
    prefix = "state/symmetric_contractions.contractions."
    tensors = {}
    with np.load(BLOCKS / f"{name}.npz") as file:
        for key in file.files:
            if "U_matrix" in key:
                degree, order = int(key.removeprefix(prefix).split(".")[0]), int(key[-1])
                tensors[degree, order] = file[key] if degree > 0 else file[key][None]
    return tensors


def contracted(tensor: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A tensor U with every index but the first and the last contracted with the same factors."""
    while tensor.ndim > 2:
        tensor = np.einsum("mi...,i->m...", tensor, factors)
    return tensor
