"""Field features, potentials and external-field features: reference numbers and identities."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
    batch_external_field_features,
    batch_field_features,
)

from .systems import REFERENCE_NAMES, batch, load_reference, random_system
from .tolerances import REFERENCE, assert_close, reference_tolerance

# The PyTorch reference takes the box length of a charged molecule as Ω^0.333333 in features.
REFERENCE_CUBE_ROOT = 0.333333


@functools.partial(jax.jit, static_argnames="settings")
def features_and_pullback(graph, multipoles, cotangent, *, settings):
    def features(positions, multipoles):
        return batch_field_features(
            graph.replace(positions=positions), multipoles, settings=settings
        )

    values, pullback = jax.vjp(features, graph.positions, multipoles)
    return values, pullback(cotangent)


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_features_and_derivatives_equal_the_reference(name):
    case = load_reference(name)
    settings = dataclasses.replace(case.settings, molecule_exponent=REFERENCE_CUBE_ROOT)
    expected = case.outputs["features"]
    cotangent = case.outputs.get("feature_cotangent", np.ones_like(expected))
    features, gradients = features_and_pullback(
        case.graph, case.multipoles, cotangent, settings=settings
    )
    tolerance = reference_tolerance(settings.boundary.value)
    assert_close(features, expected, tolerance)
    names = ("dfeatures_dpositions", "dfeatures_dmultipoles")
    for output, actual in zip(names, gradients, strict=True):
        if output in case.outputs:
            assert_close(actual, case.outputs[output], tolerance)


@pytest.mark.parametrize("name", ["mixed_periodic_l1", "pbc_l0", "pbc_l1_charged_batch", "slab_l1"])
def test_atomic_potentials_equal_the_reference(name):
    case = load_reference(name)
    potentials = jax.jit(functools.partial(batch_atomic_potentials, settings=case.settings))(
        case.graph, case.multipoles
    )
    # The reference leaves the potentials of molecules uncorrected.
    corrected = np.any(case.graph.pbc, axis=1)[case.graph.atom_graph]
    expected = case.outputs["electrostatic_potential"]
    assert_close(potentials[corrected], expected[corrected], REFERENCE)


@pytest.mark.parametrize("name", ["mixed_periodic_l1", "pbc_l0", "slab_l0_charged"])
def test_external_field_features_equal_the_reference(name):
    case = load_reference(name)
    external = jnp.asarray(case.outputs["external_potential_and_field"])
    features = batch_external_field_features(
        jax.tree.map(jnp.asarray, case.graph),
        external[:, 0],
        external[:, 1:],
        features=case.settings.features,
    )
    assert_close(features, case.outputs["external_field_features"], REFERENCE)


@pytest.mark.parametrize("feature_max_l", [1, 3])
def test_lone_atom_has_no_features_without_its_own_contribution(feature_max_l):
    settings = ElectrostaticsSettings(
        max_l=2,
        smearing_width=1.2,
        boundary="realspace",
        features=FieldFeatureSettings(max_l=feature_max_l, widths=(0.8, 2.0)),
    )
    graph, multipoles = batch([random_system(0, 1, max_l=2)], None)
    features = jax.jit(functools.partial(batch_field_features, settings=settings))
    np.testing.assert_allclose(features(graph, multipoles), 0.0, atol=1e-12)
