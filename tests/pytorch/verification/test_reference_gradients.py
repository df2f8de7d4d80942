"""Where stored gradients are not those of the stored loss, differences of the loss decide."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_models import REFERENCE

from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.verification.training import reference_gradient, reference_loss

STEP = 1e-3


@pytest.mark.slow
def test_the_density_update():
    """Along the direction in which both differ, the slope of the loss is ours, to 1% of that."""
    file = read_reference_file(REFERENCE / "training_steps" / "unroll_scf_constant_charge.npz")
    loss, params = reference_loss(file)
    ours = jax.jit(jax.grad(lambda params: loss(params)[0]))(params)
    difference = jax.tree.map(jnp.subtract, reference_gradient(file), ours)
    difference = {
        group: leaves if group == "density_update" else jax.tree.map(jnp.zeros_like, leaves)
        for group, leaves in difference.items()
    }
    size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(difference)))
    direction = jax.tree.map(lambda leaf: leaf / size, difference)

    @jax.jit
    def at(step):
        return loss(jax.tree.map(lambda p, d: p + step * d, params, direction))[0]

    values = [at(step * STEP) for step in (-2.0, -1.0, 1.0, 2.0)]
    slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)
    expected = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, ours, direction)))
    assert size > 3e-5
    np.testing.assert_allclose(slope, expected, rtol=0.0, atol=0.01 * size)
