"""Parts of density updates, against numbers of e3nn and PyTorch."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.layers.features import from_e3nn, to_e3nn
from mace_scf_jax.models.families.fixed_point.density_update import (
    InvariantResponse,
    ScaledResponse,
)
from mace_scf_jax.models.families.fixed_point.invariant_nonlinearities import (
    INVARIANT_WIDTHS,
    ChannelProducts,
    nonlinear,
)
from mace_scf_jax.pytorch.layers import normalised_network, radial_network, take_blocks

CHANNELS = 4
IRREPS = f"{CHANNELS}x0e+{CHANNELS}x1o"
SCALE = (2.0, 0.5)
SPECIES = jnp.array([0, 1, 1, 0, 0])


@pytest.fixture(scope="module")
def file():
    path = Path(__file__).parents[1] / "data" / "reference" / "density_update" / "parts.npz"
    with np.load(path) as arrays:
        return {name: jnp.asarray(values) for name, values in arrays.items()}


@pytest.fixture(scope="module")
def features(file):
    return tuple(from_e3nn(file[f"in/{name}"], IRREPS) for name in ("features", "embedded"))


def state(file):
    return {name.removeprefix("state/"): np.asarray(values) for name, values in file.items()}


def test_products_of_scalars_and_vectors(file, features):
    shapes = {f"degrees_{pair}": (CHANNELS, CHANNELS) for pair in ("00", "11", "01", "10")}
    params = take_blocks(state(file), "tp_skip.weight", shapes)
    found = ChannelProducts().apply({"params": params}, *features)
    np.testing.assert_allclose(to_e3nn(found), file["out/products"], rtol=1e-12)


class Nonlinear(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, invariants):
        return nonlinear(self.kind, invariants)


@pytest.mark.parametrize("kind", ["NoNonLinearity", "ShallowNonLinearity", "SkipMLPLinearity"])
def test_nonlinearities(file, kind):
    invariants = file["in/invariants"]
    network, expected = {}, invariants
    if kind == "ShallowNonLinearity":
        network = radial_network(state(file), "shallow.mlp.", (CHANNELS, CHANNELS))
    elif kind == "SkipMLPLinearity":
        widths = (CHANNELS, *INVARIANT_WIDTHS, CHANNELS)
        network = normalised_network(state(file), "skip.mlp.net.", widths)
    if network:
        expected = file[f"out/{kind}"]
    found = Nonlinear(kind).apply({"params": {"nonlinearity": network}}, invariants)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_scaled_response_without_products_is_a_multiple(features):
    """Of the usual response, by the scale of the element."""
    sizes = ({0: 1, 1: 1}, len(SCALE), "MLPNonLinearity")
    scaled = ScaledResponse(*sizes, dots=True, scale=SCALE)
    params = jax.jit(scaled.init)(jax.random.key(0), *features, SPECIES)["params"]
    zeros = jax.tree.map(np.zeros_like, params["products"])
    found = scaled.apply({"params": {**params, "products": zeros}}, *features, SPECIES)
    del params["products"]
    usual = InvariantResponse(*sizes).apply({"params": params}, *features, SPECIES)
    for degree, values in usual.items():
        scale = np.array(SCALE)[SPECIES][:, None, None]
        np.testing.assert_allclose(found[degree], scale * values, rtol=1e-12)
        assert np.all(values != 0.0)


def test_a_scaled_response_to_embedded_scalars(features):
    """Its invariants are the scalars themselves: it does not change with embedded vectors."""
    scaled = ScaledResponse({0: 1}, len(SCALE), "NoNonLinearity", dots=False, scale=SCALE)
    own, embedded = features
    params = scaled.init(jax.random.key(0), own, embedded, SPECIES)["params"]
    zeros = jax.tree.map(np.zeros_like, params["products"])
    params = {"params": {**params, "products": zeros}}
    found = scaled.apply(params, own, embedded, SPECIES)
    other = scaled.apply(params, own, {**embedded, 1: 2.0 * embedded[1]}, SPECIES)
    np.testing.assert_array_equal(found[0], other[0])
    double = scaled.apply(params, own, {0: 2.0 * embedded[0], 1: embedded[1]}, SPECIES)
    np.testing.assert_allclose(double[0], 2.0 * found[0], rtol=1e-12)
