"""The prepared operator v = T p, its adjoint, and sums in chunks of wavevectors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
    batch_coulomb_energy,
    batch_field_features,
    prepare_batch,
    prepare_response,
)

from .systems import Sizes, batch, random_system
from .tolerances import IDENTITY, assert_close

SETTINGS = {
    boundary: ElectrostaticsSettings(
        max_l=1,
        smearing_width=1.1,
        kspace_cutoff_factor=0.8,
        boundary=boundary,
        features=FieldFeatureSettings(max_l=2, widths=(1.0, 1.6)),
    )
    for boundary in ("mixed_periodic", "realspace")
}
CHUNK = 23
"""Wavevectors at once; divides none of the numbers of wavevectors."""


def three_graphs(settings: ElectrostaticsSettings):
    """A crystal, a slab and a molecule, padded; the same as molecules with open boundary."""
    patterns = ((True, True, True), (True, True, False), (False, False, False))
    systems = [
        random_system(index, count, length=6.0, skew=0.0, pbc=pbc)
        for index, (count, pbc) in enumerate(zip((4, 3, 1), patterns, strict=True))
    ]
    periodic = settings.boundary.value != "realspace"
    sizes = Sizes(atoms=10, graphs=4, slots=5, kvectors=200 if periodic else 0)
    return batch(systems, settings.kspace_cutoff if periodic else None, sizes)


@functools.partial(jax.jit, static_argnames=("settings", "dense", "chunk"))
def applied(graph, multipoles, cotangent, *, settings, dense, chunk=None):
    """T p, Tᵀ y, and the gradients of y·T p + 2 p·Tᵀ y in positions and strain."""

    def respond(positions, strain):
        strained = graph.replace(positions=positions).strained(strain)
        prepared = prepare_batch(strained, settings=settings, chunk=chunk)
        response = prepare_response(strained, settings=settings, dense=dense, prepared=prepared)
        features, adjoint = response.apply(multipoles), response.transpose(cotangent)
        return real_product(graph, features, cotangent) + 2.0 * real_product(
            graph, adjoint, multipoles
        ), (features, adjoint)

    zero = jnp.zeros_like(graph.cell)
    gradients, outputs = jax.grad(respond, argnums=(0, 1), has_aux=True)(graph.positions, zero)
    return *outputs, gradients


def real_product(graph, left, right):
    """Scalar product over the atoms that are no padding."""
    return jnp.sum(jnp.where(graph.atom_mask[:, None], left * right, 0.0))


@functools.partial(jax.jit, static_argnames="settings")
def features_and_gradients(graph, multipoles, cotangent, *, settings):
    """v, and the gradients of y·v in positions and strain, without the operator."""

    def respond(positions, strain):
        strained = graph.replace(positions=positions).strained(strain)
        features = batch_field_features(strained, multipoles, settings=settings)
        return real_product(graph, features, cotangent), features

    zero = jnp.zeros_like(graph.cell)
    gradients, features = jax.grad(respond, argnums=(0, 1), has_aux=True)(graph.positions, zero)
    return features, gradients


@functools.partial(jax.jit, static_argnames=("settings", "chunk"))
def observables(graph, multipoles, *, settings, chunk=None):
    prepared = prepare_batch(graph, settings=settings, chunk=chunk)

    def energy(positions):
        moved = graph.replace(positions=positions)
        again = prepare_batch(moved, settings=settings, chunk=chunk)
        return jnp.sum(batch_coulomb_energy(moved, multipoles, settings=settings, prepared=again))

    keywords = {"settings": settings, "prepared": prepared}
    return {
        "energy": batch_coulomb_energy(graph, multipoles, **keywords),
        "forces": jax.grad(energy)(graph.positions),
        "features": batch_field_features(graph, multipoles, **keywords),
        "potentials": batch_atomic_potentials(graph, multipoles, **keywords),
    }


@pytest.mark.parametrize(
    ("boundary", "kind"),
    [
        ("mixed_periodic", "sums"),
        ("mixed_periodic", "chunks"),
        ("mixed_periodic", "dense"),
        ("realspace", "sums"),
        ("realspace", "dense"),
    ],
)
def test_operator_and_adjoint(boundary, kind):
    settings = SETTINGS[boundary]
    graph, multipoles = three_graphs(settings)
    cotangent = jnp.asarray(
        np.random.default_rng(3).normal(size=(10, settings.features.num_features))
    )
    keywords = {"dense": kind == "dense", "chunk": CHUNK if kind == "chunks" else None}
    features, adjoint, gradients = applied(
        graph, multipoles, cotangent, settings=settings, **keywords
    )
    expected, expected_gradients = features_and_gradients(
        graph, multipoles, cotangent, settings=settings
    )
    assert_close(features, expected, IDENTITY)
    np.testing.assert_array_equal(features[8:], 0.0)
    np.testing.assert_array_equal(adjoint[8:], 0.0)
    np.testing.assert_allclose(
        real_product(graph, features, cotangent),
        real_product(graph, adjoint, multipoles),
        rtol=IDENTITY,
    )
    # y·T p and p·Tᵀ y are one number, so their gradients agree, however they are computed.
    for gradient, single in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, 3.0 * single, IDENTITY)


def test_sums_in_chunks_equal_those_at_once():
    settings = SETTINGS["mixed_periodic"]
    graph, multipoles = three_graphs(settings)
    expected = observables(graph, multipoles, settings=settings)
    for name, value in observables(graph, multipoles, settings=settings, chunk=CHUNK).items():
        assert_close(value, expected[name], IDENTITY)


def test_choice_between_matrix_and_sums():
    settings = SETTINGS["mixed_periodic"]
    graph, multipoles = three_graphs(settings)

    def prepared(graph, **keywords):
        return jax.eval_shape(
            functools.partial(prepare_response, settings=settings, **keywords), graph
        )

    assert prepared(graph).matrices.shape == (4, 5 * 18, 5 * 4)
    assert prepared(graph, dense=False).matrices is None
    for num_atoms, factor in ((60, 2.0), (5, 0.1)):
        # Too many atoms for the matrix to pay; or so few wavevectors that it gains nothing.
        other, _ = batch([random_system(0, num_atoms, length=6.0)], factor * settings.kspace_cutoff)
        assert prepared(other).matrices is None
    in_chunks = jax.eval_shape(
        functools.partial(prepare_batch, settings=settings, chunk=CHUNK), graph
    )
    assert prepare_response(graph, settings=settings, prepared=in_chunks).matrices is None
    with pytest.raises(ValueError, match="sums are made in chunks"):
        prepare_response(graph, settings=settings, prepared=in_chunks, dense=True)
    with pytest.raises(ValueError, match="9 components per atom, expected 4"):
        jax.eval_shape(
            lambda g, p: prepare_response(g, settings=settings).apply(p),
            graph,
            jnp.pad(multipoles, ((0, 0), (0, 5))),
        )
