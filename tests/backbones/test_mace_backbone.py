"""The whole backbone: equivariance, layouts of the edges, permutations, derivatives."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rotations import rotated
from tiny_models import (
    assert_close,
    batch_of,
    molecule,
    periodic,
    random_parameters,
    random_rotation,
    structure,
    tiny_backbone,
    tiny_settings,
)

from mace_scf_jax.backbones import MACEBackbone
from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.data.batching import required_sizes
from mace_scf_jax.graph import Graph

STRUCTURES = [structure(atoms, tiny_settings("MACE")) for atoms in (molecule(), periodic())]
ATOMS = sum(entry.num_atoms for entry in STRUCTURES)


def batch(structures=STRUCTURES, layout="flat") -> Graph:
    return batch_of(structures, required_sizes(structures, layout))


def turned(graph: Graph, rotation: np.ndarray) -> Graph:
    return graph.replace(positions=graph.positions @ rotation.T, cell=graph.cell @ rotation.T)


@pytest.mark.parametrize("kind", INTERACTIONS)
def test_features_rotate_and_energies_do_not(kind):
    # the graph is handed over with its edges: nothing but the vectors changes
    settings = tiny_backbone(
        interaction=kind, interaction_first=kind, max_ell=2, correlation=3, num_interactions=2
    )
    module = MACEBackbone(settings)
    graph = batch()
    params = random_parameters(module, graph)
    apply = jax.jit(module.apply)
    rotation = random_rotation(5, improper=True)
    straight = apply({"params": params}, graph)
    rotated_output = apply({"params": params}, turned(graph, rotation))
    assert_close(
        rotated_output.layer_energies[:, :ATOMS], straight.layer_energies[:, :ATOMS], 1e-11
    )
    for before, after in zip(straight.layers, rotated_output.layers, strict=True):
        assert set(before) == {0, 1}
        for degree, expected in rotated(before, rotation).items():
            assert_close(after[degree][:ATOMS], expected[:ATOMS], 1e-11, f"degree {degree}")


@pytest.fixture(scope="module")
def backbone():
    """A compiled backbone with nuclear repulsion, and its parameters."""
    module = MACEBackbone(
        tiny_backbone(num_interactions=2, pair_repulsion=True, distance_transform="Agnesi")
    )
    params = random_parameters(module, batch())
    return jax.jit(lambda graph: module.apply({"params": params}, graph))


def per_atom(output) -> np.ndarray:
    """All per-atom numbers of the real atoms of an output."""
    features = [
        value.reshape(len(value), -1) for layer in output.layers for value in layer.values()
    ]
    columns = [*features, output.layer_energies.T, output.pair_energy[:, None]]
    return np.concatenate([np.asarray(column) for column in columns], axis=1)[:ATOMS]


def test_the_order_of_the_edges_of_an_atom_is_free(backbone):
    rng = np.random.default_rng(0)
    shuffled = []
    for entry in STRUCTURES:
        order = np.lexsort((rng.random(entry.num_edges), entry.receivers))
        assert np.any(order != np.arange(entry.num_edges))
        shuffled.append(
            dataclasses.replace(
                entry,
                senders=entry.senders[order],
                receivers=entry.receivers[order],
                cell_shifts=entry.cell_shifts[order],
            )
        )
    assert_close(per_atom(backbone(batch(shuffled))), per_atom(backbone(batch())), 1e-13)


def test_padded_neighbours_give_what_a_flat_list_gives(backbone):
    assert_close(per_atom(backbone(batch(layout="per_atom"))), per_atom(backbone(batch())), 1e-12)


def test_translations_change_nothing(backbone):
    graph = batch()
    moved = graph.replace(positions=graph.positions + jnp.asarray([0.3, -1.1, 2.0]))
    assert_close(per_atom(backbone(moved)), per_atom(backbone(graph)), 1e-11)


def test_an_isolated_atom_has_features_but_no_neighbours(backbone):
    graph = batch()
    alone = graph.replace(edge_mask=jnp.zeros_like(graph.edge_mask))
    output = backbone(alone)
    numbers = per_atom(output)
    assert np.all(np.isfinite(numbers))
    assert np.all(np.asarray(output.pair_energy) == 0.0)
    # atoms of one element cannot be told apart
    first, second = np.flatnonzero(np.asarray(graph.species[:ATOMS]) == 0)[:2]
    assert_close(numbers[first], numbers[second], 1e-14)


def test_first_and_second_derivatives_are_finite_with_padding(backbone):
    graph = batch()

    def energy(positions):
        output = backbone(graph.replace(positions=positions))
        return jnp.sum(output.layer_energies[:, :ATOMS]) + jnp.sum(output.pair_energy)

    def squared_forces(positions):
        return jnp.sum(jax.grad(energy)(positions) ** 2)

    gradient = jax.jit(jax.grad(squared_forces))(graph.positions)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[ATOMS:] == 0.0)
    step = 1e-5 * np.random.default_rng(0).normal(size=(graph.num_atoms, 3))
    value = jax.jit(squared_forces)
    difference = value(graph.positions + step) - value(graph.positions - step)
    np.testing.assert_allclose(2 * jnp.sum(gradient * step), difference, rtol=1e-6)
