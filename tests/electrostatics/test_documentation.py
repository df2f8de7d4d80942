"""The examples of the documentation run, and say the truth."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import jax
import numpy as np

PAGE = Path(__file__).parents[2] / "docs/concepts/electrostatics.md"


def test_examples_run():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    np.testing.assert_allclose(np.sum(names["forces"], axis=0), 0.0, atol=1e-12)
    assert names["features"].shape == (2, 8)
    assert names["virials"].shape == names["graph"].cell.shape
    graph, multipoles, settings = (names[name] for name in ("graph", "multipoles", "settings"))
    expected = jax.jit(functools.partial(names["batch_field_features"], settings=settings))(
        graph, multipoles
    )
    np.testing.assert_allclose(names["v"], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        np.sum(names["adjoint"] * multipoles), np.sum(names["v"]), rtol=1e-10
    )
