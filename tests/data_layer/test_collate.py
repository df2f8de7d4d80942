from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import BatchSizes, required_sizes
from mace_scf_jax.graph import Graph

from .builders import configuration, labelled_atoms, periodic_structure, structure

BATCH = [structure(0), periodic_structure(1), structure(2, num_molecules=2)]
ROOMY = BatchSizes(atoms=30, edges=600, graphs=6, slots=9, kvectors=400)
ROOMY_PER_ATOM = dataclasses.replace(ROOMY, atoms=20, edges=20 * 90, neighbours_per_atom=90)


def edge_sums(graph: Graph) -> np.ndarray:
    """A sum over the edges of each graph that depends on every field of an edge."""
    vectors = np.asarray(graph.edge_vectors())
    species = np.asarray(graph.species)
    terms = np.exp(-np.sum(vectors**2, axis=1)) * (1.0 + species[graph.senders])
    terms = terms * (2.0 + species[graph.receivers]) * (1.0 + 0.1 * vectors[:, 2])
    sums = np.zeros(graph.num_graphs)
    np.add.at(sums, graph.atom_graph[graph.receivers], np.where(graph.edge_mask, terms, 0.0))
    return sums


def direct_edge_sum(entry) -> float:
    positions, total = entry.configuration.positions, 0.0
    for i, j, n in zip(entry.senders, entry.receivers, entry.cell_shifts, strict=True):
        vector = positions[j] - positions[i] + n @ entry.configuration.cell
        factor = (1.0 + entry.species[i]) * (2.0 + entry.species[j]) * (1.0 + 0.1 * vector[2])
        total += np.exp(-vector @ vector) * factor
    return total


@pytest.mark.parametrize("sizes", [None, ROOMY, ROOMY_PER_ATOM], ids=["fit", "flat", "per_atom"])
def test_edges_of_a_batch_are_those_of_its_structures(sizes: BatchSizes | None) -> None:
    graph = collate(BATCH, sizes)
    expected = np.zeros(graph.num_graphs)
    expected[:3] = [direct_edge_sum(entry) for entry in BATCH]
    np.testing.assert_allclose(edge_sums(graph), expected, rtol=1e-12)
    assert graph.edge_mask.sum() == sum(entry.num_edges for entry in BATCH)
    assert np.all(np.diff(graph.receivers) >= 0)
    if sizes is not None:
        assert graph.positions.shape == (sizes.atoms, 3)
        assert graph.senders.shape == (sizes.edges,)
        assert graph.slots.shape == (sizes.graphs, sizes.slots)
        assert graph.k_indices.shape == (sizes.graphs, sizes.kvectors, 3)


def test_padding_edges_of_the_flat_layout_connect_padding_atoms() -> None:
    graph = collate(BATCH, ROOMY)
    padding = ~graph.edge_mask
    assert not graph.atom_mask[graph.senders[padding]].any()
    assert not graph.atom_mask[graph.receivers[padding]].any()
    assert graph.neighbours_per_atom is None


def test_per_atom_layout_gives_each_atom_its_own_block_of_edges() -> None:
    graph = collate(BATCH, ROOMY_PER_ATOM)
    assert graph.neighbours_per_atom == 90
    np.testing.assert_array_equal(graph.receivers, np.repeat(np.arange(20), 90))
    mask = graph.edge_mask.reshape(20, 90)
    counts = np.concatenate([entry.neighbour_counts() for entry in BATCH])
    np.testing.assert_array_equal(mask.sum(axis=1)[:13], counts)
    assert np.all(mask[:, :-1] >= mask[:, 1:])
    assert not graph.atom_mask[graph.senders[~graph.edge_mask]].any()


def test_fields_of_real_graphs() -> None:
    graph = collate(BATCH, ROOMY)
    assert graph.graph_mask.tolist() == [True] * 3 + [False] * 3
    assert graph.atom_mask.sum() == 13
    assert graph.atom_graph.tolist() == [0] * 3 + [1] * 4 + [2] * 6 + [5] * 17
    start = 0
    for index, entry in enumerate(BATCH):
        rows = slice(start, start + entry.num_atoms)
        start += entry.num_atoms
        source = entry.configuration
        np.testing.assert_array_equal(graph.positions[rows], source.positions)
        np.testing.assert_array_equal(graph.species[rows], entry.species)
        np.testing.assert_array_equal(graph.cell[index], source.cell)
        np.testing.assert_array_equal(graph.pbc[index], source.pbc)
        np.testing.assert_array_equal(graph.k_indices[index][graph.k_mask[index]], entry.k_indices)
        assert not graph.k_indices[index][~graph.k_mask[index]].any()
        for name in ("forces", "atomic_multipoles", "electrostatic_potentials", "molID"):
            np.testing.assert_array_equal(graph.labels[name][rows], source.values[name])
        for name in ("energy", "stress", "virials", "dipole", "polarizability"):
            np.testing.assert_array_equal(graph.labels[name][index], source.values[name])
        for name, weights in graph.weights.items():
            np.testing.assert_array_equal(weights[index], source.weights[name])
        for name in ("total_charge", "fermi_level", "external_field"):
            np.testing.assert_array_equal(getattr(graph, name)[index], source.values[name])
        np.testing.assert_array_equal(graph.labels["total_charge"], graph.total_charge)


def test_padding_holds_no_label_and_no_weight() -> None:
    graph = collate(BATCH, ROOMY)
    for name, values in graph.labels.items():
        padding = ~graph.atom_mask if len(values) == ROOMY.atoms else ~graph.graph_mask
        assert not values[padding].any(), name
    assert not any(weights[~graph.graph_mask].any() for weights in graph.weights.values())
    assert not graph.config_weight[3:].any()
    assert np.all(np.abs(np.linalg.det(graph.cell)) > 0.0)


def test_labels_missing_in_one_structure_do_not_touch_the_others() -> None:
    graph = collate(BATCH, ROOMY)
    assert graph.weights["energy"].tolist() == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert graph.labels["energy"][1] == 0.0
    assert graph.weights["dipole"].shape == (6, 3)
    assert graph.weights["polarizability"].tolist() == [0.0] * 6


def test_slots_are_the_dense_view_of_the_atoms() -> None:
    graph = jax.tree.map(np.asarray, collate(BATCH, ROOMY))
    dense = np.asarray(graph.to_slots(graph.positions))
    assert dense.shape == (6, 9, 3)
    np.testing.assert_array_equal(graph.slot_mask.sum(axis=1), [3, 4, 6, 0, 0, 0])
    np.testing.assert_array_equal(dense[1, :4], BATCH[1].configuration.positions)
    assert not dense[~graph.slot_mask].any()
    np.testing.assert_array_equal(
        graph.from_slots(dense), np.where(graph.atom_mask[:, None], graph.positions, 0.0)
    )


def test_real_numbers_take_the_type_asked_for_and_indices_are_32_bit() -> None:
    graph = collate(BATCH, dtype=np.float32)
    assert graph.dtype == np.float32
    precise = (graph.positions, graph.cell, graph.repeat, graph.labels["energy"])
    assert {values.dtype for values in precise} == {np.dtype(np.float64)}
    rest = graph.replace(
        positions=None,
        cell=None,
        repeat=None,
        labels={**graph.labels, "energy": np.zeros(0, np.float32)},
    )
    kinds = {leaf.dtype for leaf in jax.tree.leaves(rest)}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int32), np.dtype(bool)}
    assert {leaf.dtype for leaf in jax.tree.leaves(collate(BATCH))} == {
        np.dtype(np.float64),
        np.dtype(np.int32),
        np.dtype(bool),
    }


def test_labels_can_be_left_out() -> None:
    graph = collate(BATCH, labels=False)
    assert graph.labels == graph.weights == {}
    assert set(graph.atom_data) == {"charges", "enegs", "hardness"}


def test_structures_without_edges_or_reciprocal_vectors() -> None:
    lonely = structure(0, cutoff=0.1, kspace_cutoff=None)
    for layout in ("flat", "per_atom"):
        graph = collate([lonely], required_sizes([lonely], layout))
        assert not graph.edge_mask.any()
        assert graph.k_indices.shape == (2, 0, 3)
        assert np.all(np.isfinite(graph.edge_vectors()))


def test_a_batch_that_does_not_fit_is_refused() -> None:
    exact = required_sizes(BATCH)
    collate(BATCH, exact)
    for field in ("atoms", "edges", "graphs", "slots", "kvectors"):
        small = dataclasses.replace(exact, **{field: getattr(exact, field) - 1})
        with pytest.raises(DataError, match="found structures that need"):
            collate(BATCH, small)


def test_config_weight_reaches_the_batch() -> None:
    assert configuration(labelled_atoms(config_weight=2.5)).config_weight == 2.5
    heavy = dataclasses.replace(
        BATCH[0], configuration=configuration(labelled_atoms(0, config_weight=2.5))
    )
    assert collate([heavy, BATCH[1]]).config_weight.tolist() == [2.5, 1.0, 0.0]
