"""Gradients in the parameters, as training takes them, and single precision."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    assert_close,
    batch_of,
    molecule,
    periodic,
    random_parameters,
    structure,
    tiny_settings,
)

from mace_scf_jax.data.batching import required_sizes
from mace_scf_jax.models import build, evaluate
from mace_scf_jax.models.outputs import ENERGIES
from mace_scf_jax.predict.model import Model

SETTINGS = tiny_settings("LocalCharges")
MODULE = build(SETTINGS)
STRUCTURES = [structure(atoms, SETTINGS) for atoms in (molecule(), periodic())]
SIZES = required_sizes(STRUCTURES, "per_atom")


@pytest.fixture(scope="module")
def parameters():
    return random_parameters(MODULE, batch_of(STRUCTURES, SIZES))


@jax.jit
def loss(params, graph):
    """Mean square of forces and multipoles, as a loss without labels."""
    outputs = evaluate(MODULE, params, graph, forces=True)
    return jnp.mean(outputs["forces"] ** 2) + jnp.mean(outputs["multipoles"] ** 2)


def test_gradient_of_a_force_loss(parameters):
    graph = batch_of(STRUCTURES, SIZES)
    gradient = jax.jit(jax.grad(loss))(parameters, graph)
    for path, values in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(values)), path
        assert np.any(values != 0.0), path
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), parameters)

        def along(step, direction=direction):
            moved = jax.tree.map(lambda leaf, d: leaf + step * d, parameters, direction)
            return float(loss(moved, graph))

        h = 1e-4
        difference = (8 * (along(h) - along(-h)) - along(2 * h) + along(-2 * h)) / (12 * h)
        products = jax.tree.map(lambda g, d: float(jnp.sum(g * d)), gradient, direction)
        assert_close(sum(jax.tree.leaves(products)), difference, 1e-7)


def test_single_precision_is_close_to_double_precision(parameters):
    compiled = jax.jit(lambda params, graph: evaluate(MODULE, params, graph, stress=True))
    double = compiled(parameters, batch_of(STRUCTURES, SIZES))
    half_as_wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parameters)
    single = compiled(half_as_wide, batch_of(STRUCTURES, SIZES, dtype=np.float32))
    assert double.keys() == single.keys()
    for name, expected in double.items():
        assert expected.dtype == jnp.float64, name
        in_double = name in ENERGIES
        assert single[name].dtype == (jnp.float64 if in_double else jnp.float32), name
        # a few hundred roundings of 6e-8
        assert_close(single[name].astype(jnp.float64), expected, 2e-5, name)


def test_single_precision_loses_nothing_to_isolated_atoms_nor_far_from_the_origin():
    settings = dataclasses.replace(SETTINGS, atomic_energies=(-13.6, -2.0e6))
    parameters = random_parameters(MODULE, batch_of(STRUCTURES, SIZES))
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parameters)
    double, single = Model(settings, parameters), Model(settings, halved)
    structures, shifted = (molecule(), periodic()), []
    for atoms in structures:
        atoms.info = {}
        for distance in (0.0, 100.0, 10_000.0):
            shifted.append(atoms.copy())
            shifted[-1].positions += distance
    together = single.predict(shifted)
    for index, expected in enumerate(double.predict(structures)):
        found = together[3 * index : 3 * index + 3]
        largest = np.max(np.abs(expected["forces"]))
        for prediction in found:
            scale = np.max(np.abs(expected["contributions"][1:]))
            assert abs(prediction["energy"] - expected["energy"]) < 1e-5 * scale
            assert np.max(np.abs(prediction["forces"] - expected["forces"])) < 2e-5 * largest
        for prediction in found[1:]:
            differences = np.abs(prediction["forces"] - found[0]["forces"])
            assert np.max(differences) < 5e-6 * largest
