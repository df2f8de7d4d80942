"""Descriptors that are computed before training change nothing."""

from __future__ import annotations

import ase
import jax
import numpy as np
import pytest
from tiny_models import (
    assert_close,
    molecule,
    periodic,
    random_parameters,
    slab,
    structure,
    tiny_settings,
)

from mace_scf_jax.backbones.chebyshev.stored import with_descriptors
from mace_scf_jax.data.collate import padded
from mace_scf_jax.data.sets import as_set
from mace_scf_jax.models import build, evaluate

SETTINGS = tiny_settings("ChebyshevANN")
BACKBONE = SETTINGS.backbone
SMALL_CELL = ase.Atoms(
    "OH",
    positions=[[0.1, 0.2, 0.0], [0.9, 0.8, 1.0]],
    cell=[[1.9, 0.0, 0.0], [0.3, 2.1, 0.0], [0.1, -0.2, 2.0]],
    pbc=True,
    info={"total_charge": 0.0},
)
"""Atoms see several images of each other, and of themselves."""
STRUCTURES = as_set(
    [structure(atoms, SETTINGS) for atoms in (molecule(), periodic(), slab(), SMALL_CELL)]
)


def batch(members, dtype=np.float64):
    sizes = members.sizes.of_one_batch("per_atom")
    return padded(members.stack(np.arange(len(members))), sizes, labels=False, dtype=dtype)


def stored(*, derivatives, dtype=np.float64):
    return with_descriptors(
        STRUCTURES,
        BACKBONE.descriptor,
        BACKBONE.elements,
        dtype=dtype,
        derivatives=derivatives,
    )


@pytest.fixture(scope="module")
def model():
    module = build(SETTINGS)
    return module, random_parameters(module, batch(STRUCTURES))


def test_energies_forces_stress_and_their_gradients_are_the_same(model):
    module, parameters = model
    rng = np.random.default_rng(0)
    plain = batch(STRUCTURES)
    weights = {
        "energy": rng.normal(size=plain.num_graphs),
        "forces": rng.normal(size=plain.positions.shape),
        "stress": rng.normal(size=plain.cell.shape),
    }
    real = np.asarray(plain.atom_mask)

    @jax.jit
    def evaluated(parameters, graph):
        def loss(parameters):
            outputs = evaluate(module, parameters, graph, forces=True, stress=True)
            chosen = {name: outputs[name] for name in weights}
            return sum((weights[name] * chosen[name]).sum() for name in weights), chosen

        (_, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        return outputs, gradient

    # stress of open structures is NaN; their weights are left out
    weights["stress"][~np.asarray(plain.pbc).any(axis=1)] = 0.0
    weights["forces"][~real] = 0.0
    expected, expected_gradient = evaluated(parameters, plain)
    found, gradient = evaluated(parameters, batch(stored(derivatives=True)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(expected_gradient))
    for name in weights:
        assert_close(found[name], expected[name], 1e-12, name)
    assert_close(found["forces"][real], expected["forces"][real], 1e-12)
    jax.tree.map(lambda one, other: assert_close(one, other, 1e-11), gradient, expected_gradient)


def test_edges_are_pairs_of_different_atoms():
    pairs, edges = stored(derivatives=True), STRUCTURES
    for number, each in enumerate(pairs):
        found = list(zip(each.receivers, each.senders, strict=True))
        whole = edges[number]
        seen = set(zip(whole.receivers.tolist(), whole.senders.tolist(), strict=True))
        assert found == sorted(pair for pair in seen if pair[0] != pair[1])
        assert not each.cell_shifts.any()
    assert any((each.senders == each.receivers).any() for each in edges)


def test_without_edges_energies_are_the_same(model):
    module, parameters = model
    energies = jax.jit(lambda graph: module.apply({"params": parameters}, graph)["energy"])
    members = stored(derivatives=False)
    assert members.sizes.edges.sum() == 0
    assert_close(energies(batch(members)), energies(batch(STRUCTURES)), 1e-13)


@pytest.mark.parametrize("asked", ["forces", "stress"])
def test_forces_from_descriptors_without_derivatives_are_refused(model, asked):
    """They would be zero. Gradients of energies by the parameters need no derivatives."""
    module, parameters = model
    graph = batch(stored(derivatives=False))
    with pytest.raises(ValueError, match="found a batch without their derivatives"):
        jax.eval_shape(lambda graph: evaluate(module, parameters, graph, **{asked: True}), graph)

    def energy(parameters, graph):
        return module.apply({"params": parameters}, graph)["energy"].sum()

    gradient = jax.jit(jax.grad(energy))(parameters, graph)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_kept_in_single_precision():
    graph = batch(stored(derivatives=True, dtype=np.float32), np.float32)
    assert graph.descriptors.values.dtype == graph.descriptors.by_vector.dtype == np.float32
    assert_close(
        graph.descriptors.values, batch(stored(derivatives=False)).descriptors.values, 1e-7
    )


@pytest.mark.parametrize(("most_bytes", "fits"), [(10_000_000, True), (1_000, False)])
def test_sets_that_would_take_too_much_memory_are_left_as_they_are(most_bytes, fits):
    found = with_descriptors(
        STRUCTURES,
        BACKBONE.descriptor,
        BACKBONE.elements,
        dtype=np.float64,
        derivatives=True,
        most_bytes=most_bytes,
    )
    assert (found is not None) == fits
