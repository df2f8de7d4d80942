"""Initial parameters drawn at once are those that Flax draws one by one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from tiny_models import batch_of, molecule, structure, tiny_settings

from mace_scf_jax.layers.drawn import drawn_parameters, normal, ones, uniform, unit_normal
from mace_scf_jax.models import build


class Layer(nn.Module):
    """Parameters of several sizes and kinds, before and after those of a layer within."""

    depth: int = 1

    @nn.compact
    def __call__(self, x):
        last = self.param("z", unit_normal, (x.shape[-1], 700))
        x = x @ last @ self.param("a", normal(0.3), (700, 5))
        if self.depth:
            x = Layer(self.depth - 1, name="within")(x)
        x = x + self.param("within_bounds", uniform(0.3), (600, 5))[0]
        x = x * self.param("scale", ones, ())
        other = self.param("other", nn.initializers.uniform(), (3,))
        return jnp.sum(other) * x + self.param("bias", ones, (1,))


def assert_as_flax_draws(module, *inputs):
    key = jax.random.key(3)
    drawn = drawn_parameters(module, key, *inputs)
    expected = jax.jit(module.init)(key, *inputs)["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), drawn, expected)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(drawn))
    return drawn


def test_parameters_of_all_kinds_and_sizes():
    drawn = assert_as_flax_draws(Layer(), jnp.ones((2, 6)))
    assert np.std(drawn["z"]) == pytest.approx(1.0, abs=0.05)
    assert np.std(drawn["a"]) == pytest.approx(0.3, abs=0.02)
    assert np.std(drawn["within_bounds"]) == pytest.approx(0.3 / np.sqrt(3.0), abs=0.01)


@pytest.mark.parametrize("family", ["LocalCharges", "ChebyshevANN"])
def test_a_whole_model_takes_one_generator(family):
    settings = tiny_settings(family)
    module = build(settings)
    graph = jax.tree.map(jnp.asarray, batch_of([structure(molecule(), settings)]))
    drawn_parameters(module, jax.random.key(0), graph)
    with compilations() as compiled:
        drawn_parameters(module, jax.random.key(0), graph)
    assert [name for name in compiled if "draw" in name] == ["jit(draw)"]
    assert not [name for name in compiled if "make" in name or "init" in name]
    assert_as_flax_draws(module, graph)
