"""Solid harmonics, Gaussian multipoles and the special functions they need."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mace_scf_jax.electrostatics import polynomials
from mace_scf_jax.electrostatics.choices import MAX_L
from mace_scf_jax.electrostatics.gaussians import (
    Receivers,
    form_factors,
    multipole_norm,
    receiver_norm,
    receiver_scale,
    self_interaction,
)
from mace_scf_jax.electrostatics.harmonics import SOLID_HARMONICS, solid_harmonics
from mace_scf_jax.electrostatics.sums import OpenSum
from mace_scf_jax.electrostatics.sums.boys import boys_functions
from mace_scf_jax.electrostatics.sums.direct import cosine_and_sine_of_turns
from mace_scf_jax.units import COULOMB_CONSTANT

from .tolerances import IDENTITY, assert_close


def real_spherical_harmonics(vectors: np.ndarray, max_l: int) -> np.ndarray:
    """Orthonormal real harmonics from SciPy's complex ones, without Condon–Shortley sign."""
    polar = np.arccos(vectors[:, 2] / np.linalg.norm(vectors, axis=1))
    azimuth = np.arctan2(vectors[:, 1], vectors[:, 0])
    columns = []
    for degree in range(max_l + 1):
        for m in range(-degree, degree + 1):
            value = scipy.special.sph_harm_y(degree, abs(m), polar, azimuth)
            sign = np.sqrt(2.0) * (-1.0) ** m
            columns.append(value.real if m == 0 else sign * (value.real if m > 0 else value.imag))
    return np.stack(columns, axis=1)


def test_solid_harmonics_are_scaled_real_spherical_harmonics():
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    degrees = np.array([0] + [1] * 3 + [2] * 5 + [3] * 7)
    radius = np.linalg.norm(vectors, axis=1)[:, None]
    expected = np.sqrt(4 * np.pi / (2 * degrees + 1)) * radius**degrees
    expected = expected * real_spherical_harmonics(vectors, MAX_L)
    harmonics = jax.jit(solid_harmonics, static_argnums=1)
    assert_close(harmonics(vectors, MAX_L), expected, IDENTITY)
    np.testing.assert_array_equal(harmonics(vectors, 1)[:, 1:], vectors[:, [1, 2, 0]])


def test_solid_harmonics_satisfy_the_laplace_equation():
    for block in SOLID_HARMONICS:
        for harmonic in block:
            np.testing.assert_allclose(
                list(polynomials.laplacian(harmonic).values()), 0.0, atol=1e-14
            )


def test_derivatives_of_solid_harmonics_are_finite_at_the_origin():
    hessian = jax.jit(jax.hessian(lambda vector: solid_harmonics(vector, MAX_L)))(jnp.zeros(3))
    assert np.all(np.isfinite(hessian))


@pytest.mark.parametrize("degree", range(MAX_L + 1))
@pytest.mark.parametrize("width", [0.5, 1.5])
def test_norms_and_form_factors_equal_radial_integrals(degree, width):
    radius = np.linspace(0.0, 14.0 * width, 4001)
    gaussian = np.exp(-0.5 * (radius / width) ** 2)
    norm = multipole_norm(degree, width)
    # ∫ φ_lm R_lm with orthonormal Y_lm.
    moment = norm * np.sqrt(4 * np.pi / (2 * degree + 1)) * radius ** (2 * degree + 2) * gaussian
    np.testing.assert_allclose(np.trapezoid(moment, radius), 1.0, rtol=1e-10)
    receiver = receiver_norm(degree, width) * radius ** (degree + 2) * gaussian
    np.testing.assert_allclose(np.trapezoid(receiver, radius), 1.0, rtol=1e-6)
    # Along z only m = 0 remains, with Y_l0 = √((2l+1)/4π).
    k = 1.3 / width
    transform = (
        4
        * np.pi
        * norm
        * np.sqrt((2 * degree + 1) / (4 * np.pi))
        * np.trapezoid(
            radius ** (degree + 2) * gaussian * scipy.special.spherical_jn(degree, k * radius),
            radius,
        )
    )
    factors = form_factors(jnp.array([[0.0, 0.0, k]]), width, degree)
    np.testing.assert_allclose(factors[0, degree**2 + degree], transform, rtol=1e-10)


@pytest.mark.parametrize(("width", "receiver_width"), [(1.0, 1.0), (1.5, 0.7), (0.4, 2.0)])
def test_self_interaction_is_the_pair_interaction_at_zero_distance(width, receiver_width):
    site = jnp.zeros((1, 3))
    project = jax.vmap(
        lambda multipoles: OpenSum(site, width, MAX_L).project(
            multipoles[None], Receivers(MAX_L, (receiver_width,))
        )[0, 0]
    )
    projection = jax.jit(project)(jnp.eye(16))
    degrees = [0] + [1] * 3 + [2] * 5 + [3] * 7
    constants = [self_interaction(degree, width, receiver_width) for degree in degrees]
    np.testing.assert_allclose(projection, np.diag(constants), rtol=1e-13, atol=1e-13)


def test_self_interaction_of_a_gaussian_charge():
    width = 1.3
    np.testing.assert_allclose(
        self_interaction(0, width, width), COULOMB_CONSTANT / (width * np.sqrt(np.pi)), rtol=1e-14
    )


def test_receiver_scale_of_charge_and_dipole():
    np.testing.assert_allclose(receiver_scale(0, 0.8), np.sqrt(4 * np.pi), rtol=1e-14)
    np.testing.assert_allclose(
        receiver_scale(1, 0.8),
        receiver_norm(1, 0.8) * np.sqrt(1.5) * 2 * np.pi * 0.8**5,
        rtol=1e-14,
    )


@pytest.mark.parametrize(("dtype", "accuracy"), [("float64", 4e-16), ("float32", 2e-7)])
def test_cosine_and_sine_of_turns(dtype, accuracy):
    turns = np.random.default_rng(1).uniform(-40.0, 40.0, 20_000).astype(dtype)
    turns[:9] = np.arange(-4, 5) / 8
    cosine, sine = cosine_and_sine_of_turns(jnp.asarray(turns))
    exact = 2 * np.pi * (turns.astype(np.float64) - np.round(turns.astype(np.float64)))
    assert cosine.dtype == sine.dtype == dtype
    np.testing.assert_allclose(cosine, np.cos(exact), rtol=0.0, atol=accuracy)
    np.testing.assert_allclose(sine, np.sin(exact), rtol=0.0, atol=accuracy)


def test_derivatives_of_cosine_and_sine_of_turns():
    turn = 3.3
    second = jax.jit(jax.hessian(lambda t: jnp.stack(cosine_and_sine_of_turns(t))))(turn)
    angle = 2 * np.pi * turn
    expected = -4 * np.pi**2 * np.array([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(second, expected, rtol=1e-13)


def test_boys_functions_equal_the_incomplete_gamma_function():
    x = np.concatenate([[1e-9], np.geomspace(1e-6, 200.0, 200), [7.999999, 8.0, 8.000001]])
    values = jax.jit(boys_functions, static_argnums=1)(jnp.asarray(x), 8)
    for order, value in enumerate(values):
        half = order + 0.5
        gamma = scipy.special.gammainc(half, x) * scipy.special.gamma(half)
        np.testing.assert_allclose(value, gamma / (2 * x**half), rtol=3e-14)
    np.testing.assert_allclose(boys_functions(jnp.zeros(()), 3), [1, 1 / 3, 1 / 5, 1 / 7])


def test_derivatives_of_boys_functions():
    x = jnp.array([0.0, 0.3, 7.5, 8.5, 40.0])
    values = jax.jit(boys_functions, static_argnums=1)(x, 4)
    second = jax.jit(jax.vmap(jax.grad(jax.grad(lambda t: boys_functions(t, 2)[2]))))(x)
    np.testing.assert_allclose(second, values[4], rtol=1e-13)
