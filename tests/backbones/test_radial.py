"""Radial functions against closed forms, smoothness at the cutoff."""

from __future__ import annotations

import ase.data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import random_parameters

from mace_scf_jax.backbones.mace.pair_repulsion import pair_repulsion
from mace_scf_jax.backbones.mace.radial import (
    RadialNetwork,
    agnesi_transform,
    bessel_basis,
    chebyshev_basis,
    gaussian_basis,
    polynomial_cutoff,
    radial_embedding,
    soft_transform,
)
from mace_scf_jax.layers.readout import SECOND_MOMENT_SCALE, activation

R = np.linspace(0.4, 4.9, 12)
CUTOFF = 5.0


def on_device(*arrays):
    return (jnp.asarray(array) for array in arrays)


def test_bessel_basis():
    n = np.arange(1, 7)
    expected = np.sqrt(2 / CUTOFF) * np.sin(n * np.pi * R[:, None] / CUTOFF) / R[:, None]
    np.testing.assert_allclose(bessel_basis(jnp.asarray(R), CUTOFF, 6), expected, atol=1e-14)


def test_gaussian_basis():
    centres = np.array([0.0, 1.25, 2.5, 3.75, 5.0])
    expected = np.exp(-0.5 * ((R[:, None] - centres) / 1.25) ** 2)
    np.testing.assert_allclose(gaussian_basis(jnp.asarray(R), CUTOFF, 5), expected, rtol=1e-13)


def test_chebyshev_basis():
    expected = np.stack(
        [np.polynomial.chebyshev.chebval(R, np.eye(6)[n]) for n in range(1, 6)], axis=-1
    )
    np.testing.assert_allclose(chebyshev_basis(jnp.asarray(R), CUTOFF, 5), expected, rtol=1e-12)


@pytest.mark.parametrize("exponent", [3, 5, 6])
def test_cutoff_ends_with_two_continuous_derivatives(exponent):
    def envelope(r):
        return polynomial_cutoff(r, CUTOFF, exponent)

    below, at, beyond = (jnp.asarray(r) for r in (CUTOFF - 1e-6, CUTOFF, CUTOFF + 0.1))
    for derivative in (envelope, jax.grad(envelope), jax.grad(jax.grad(envelope))):
        # The third derivative is of order p³/r_c³, so the second vanishes linearly.
        assert abs(derivative(below)) < 1e-4
        assert derivative(at) == 0.0
        assert derivative(beyond) == 0.0
    assert envelope(jnp.asarray(0.0)) == 1.0
    np.testing.assert_allclose(jax.grad(envelope)(jnp.asarray(1e-9)), 0.0, atol=1e-9)


def test_cutoff_halfway():
    # 1 - 21 x⁵ + 35 x⁶ - 15 x⁷ for p = 5
    np.testing.assert_allclose(
        polynomial_cutoff(jnp.asarray(2.5), CUTOFF, 5), 1 - 21 / 32 + 35 / 64 - 15 / 128, rtol=1e-15
    )


def test_agnesi_transform_falls_from_one_to_its_tail():
    lengths, bond = on_device(np.array([1e-6, 0.7, 2.0, 20.0]), np.full(4, 1.4))
    x = np.array([0.7, 2.0]) / 0.7
    expected = 1 / (1 + 1.0805 * x**0.9183 / (1 + x ** (0.9183 - 4.5791)))
    transformed = agnesi_transform(lengths, bond)
    np.testing.assert_allclose(transformed[1:3], expected, rtol=1e-14)
    assert np.all(np.diff(transformed) < 0)
    np.testing.assert_allclose(transformed[0], 1.0, atol=1e-12)


def test_soft_transform_keeps_long_lengths_and_flattens_short_ones():
    lengths, bond = on_device(np.array([0.05, 1.0, 1.4, 10.0]), np.full(4, 1.4))
    lower, upper = 0.75 * 1.4, 4 / 3 * 1.4
    switch = 0.5 * (1 + np.tanh(4 / (upper - lower) * (1.4 - (lower + upper) / 2)))
    transformed = soft_transform(lengths, bond)
    np.testing.assert_allclose(transformed[0], lower, atol=1e-3)
    np.testing.assert_allclose(transformed[2], lower + (1.4 - lower) * switch, rtol=1e-14)
    np.testing.assert_allclose(transformed[3], 10.0, rtol=1e-12)


def test_embedding_cuts_off_by_the_true_length():
    lengths = np.array([1.0, 4.99, 5.0, 5.5])
    species = np.zeros(4, dtype=int)
    options = {"elements": (1, 8), "radial_type": "bessel", "cutoff": CUTOFF, "size": 3}
    basis, envelope = radial_embedding(
        *on_device(lengths, species, species + 1),
        distance_transform="Agnesi",
        cutoff_exponent=5,
        **options,
    )
    embedded = basis * envelope[:, None]
    radii = ase.data.covalent_radii
    transformed = agnesi_transform(*on_device(lengths, np.full(4, radii[1] + radii[8])))
    expected = (
        bessel_basis(transformed, CUTOFF, 3)
        * polynomial_cutoff(jnp.asarray(lengths), CUTOFF, 5)[:, None]
    )
    np.testing.assert_allclose(embedded, expected, rtol=1e-14)
    assert np.all(np.asarray(embedded)[2:] == 0.0)
    assert np.all(np.asarray(embedded)[:2] != 0.0)


def test_network_divides_by_the_root_of_its_inputs():
    module = RadialNetwork((4, 3))
    x = np.random.default_rng(0).normal(size=(5, 6))
    params = random_parameters(module, x)
    hidden = x @ params["layer_0"] / np.sqrt(6)
    hidden = SECOND_MOMENT_SCALE["silu"] * hidden / (1 + np.exp(-hidden))
    expected = hidden @ params["layer_1"] / np.sqrt(4)
    np.testing.assert_allclose(
        module.apply({"params": params}, jnp.asarray(x)), expected, rtol=1e-13
    )


@pytest.mark.parametrize("name", SECOND_MOMENT_SCALE)
def test_activations_have_unit_second_moment(name):
    points, weights = np.polynomial.hermite_e.hermegauss(120)
    values = np.asarray(activation(name)(jnp.asarray(points)))
    moment = weights @ values**2 / np.sqrt(2 * np.pi)
    # e3nn estimates the scale from a finite sample, and its estimate is kept.
    np.testing.assert_allclose(moment, 1.0, rtol=4e-3)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="expected one of silu, tanh, abs, sigmoid, found 'gelu'"):
        activation("gelu")


def test_pair_repulsion_is_the_screened_coulomb_energy():
    r = np.array([0.3, 0.9, 1.2])
    hydrogen, oxygen = np.zeros(3, dtype=int), np.ones(3, dtype=int)
    energy = pair_repulsion(*on_device(r, hydrogen, oxygen), elements=(1, 8), cutoff_exponent=5)
    x = r / (0.4543 * 0.529 / (1**0.3 + 8**0.3))
    coefficients = [(0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016)]
    screening = sum(a * np.exp(-b * x) for a, b in coefficients)
    u = r / (ase.data.covalent_radii[1] + ase.data.covalent_radii[8])
    envelope = np.where(u < 1, 1 - 21 * u**5 + 35 * u**6 - 15 * u**7, 0)
    np.testing.assert_allclose(energy, 0.5 * 14.3996 * 8 / r * screening * envelope, rtol=1e-13)
    assert energy[2] == 0.0  # beyond the sum of the covalent radii, 0.97 Å
    same = pair_repulsion(*on_device(r, oxygen, hydrogen), elements=(1, 8), cutoff_exponent=5)
    np.testing.assert_allclose(same, energy, rtol=1e-15)
