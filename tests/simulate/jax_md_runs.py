"""What runs of JAX-MD have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units
from tiny_models import periodic

with jax.numpy_dtype_promotion("standard"):
    pytest.importorskip("jax_md")
    from jax_md import space

_, FREE_SHIFT = space.free()
STEP = float(np.float32(0.2 * units.fs))
"""JAX-MD rounds time steps to single precision."""
THERMAL_ENERGY = 300.0 * units.kB


def masses():
    return jnp.asarray(periodic().get_masses())


def run(step_fn, state, neighbors, num_steps, observe):
    """Steps within one scan, neighbours renewed on the way."""

    @jax.jit
    def scan(state, neighbors):
        def body(carry, _):
            state, neighbors = carry
            box = {"box": state.box} if hasattr(state, "box") else {}
            neighbors = neighbors.update(state.position, **box)
            state = step_fn(state, neighbor=neighbors)
            return (state, neighbors), observe(state, neighbors)

        return jax.lax.scan(body, (state, neighbors), length=num_steps)

    (state, neighbors), observed = scan(state, neighbors)
    assert not bool(neighbors.did_buffer_overflow)
    return state, neighbors, observed
