from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from mace_scf_jax.data.batching import BatchLoader, batches_by_size, share_buckets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import BatchSizes
from mace_scf_jax.data.structure import Structure, prepare_all
from mace_scf_jax.graph import Graph

from .builders import WATER_IONS, periodic_structure, read_configurations, structure


@pytest.fixture(scope="module")
def water_ions() -> list[Structure]:
    configurations = read_configurations(WATER_IONS)
    return prepare_all(configurations, elements=(1, 8, 11, 17), cutoff=5.0, kspace_cutoff=1.2)


def shapes(graph: Graph) -> tuple:
    return tuple(leaf.shape for leaf in jax.tree.leaves(graph))


def test_batches_with_repeats_fit_too() -> None:
    structures = [structure(seed, num_molecules=1 + 3 * (seed == 2)) for seed in range(4)]
    loader = BatchLoader(structures, batch_size=2, shuffle=True, repeats=True)
    members = loader.split(np.array([2, 2, 0, 1]))
    first, second = loader.batches(members)
    assert (first.atom_mask.sum(), second.atom_mask.sum()) == (24, 6)


@pytest.mark.parametrize("layout", [pytest.param("flat", marks=pytest.mark.slow), "per_atom"])
def test_few_shapes_over_many_epochs(water_ions: list[Structure], layout: str) -> None:
    loader = BatchLoader(
        water_ions, batch_size=8, shuffle=True, seed=3, drop_last=True, layout=layout
    )
    assert len(loader) == 57
    assert 1 <= len(loader.buckets) <= 4
    found = {shapes(graph) for epoch in range(3) for graph in loader.epoch(epoch)}
    assert len(found) <= len(loader.buckets)
    used = {loader.bucket_of(i) for epoch in range(100) for i in loader.batch_indices(epoch)}
    assert used <= set(loader.buckets)


def test_padding_wastes_little(water_ions: list[Structure]) -> None:
    loader = BatchLoader(water_ions, batch_size=8, shuffle=True, drop_last=True)
    real = padded = 0
    for graph in loader.epoch(0):
        real += graph.atom_mask.sum()
        padded += graph.num_atoms
    assert padded < 1.4 * real


def test_any_batch_fits(water_ions: list[Structure]) -> None:
    loader = BatchLoader(water_ions, batch_size=8, shuffle=True, drop_last=True)
    by_atoms = np.argsort([-entry.num_atoms for entry in water_ions])[:8]
    by_edges = np.argsort([-entry.num_edges for entry in water_ions])[:8]
    for indices in (by_atoms, by_edges):
        assert loader.bucket_of(indices) in loader.buckets


def test_epochs_are_a_pure_function_of_seed_and_number() -> None:
    structures = [structure(seed) for seed in range(10)]
    first = BatchLoader(structures, batch_size=3, shuffle=True, seed=5)
    again = BatchLoader(structures, batch_size=3, shuffle=True, seed=5)
    other = BatchLoader(structures, batch_size=3, shuffle=True, seed=6)
    list(first.epoch(0))

    def order(loader: BatchLoader, epoch: int) -> list[int]:
        return np.concatenate(loader.batch_indices(epoch)).tolist()

    assert order(first, 4) == order(again, 4)
    assert order(first, 4) != order(first, 5)
    assert order(first, 4) != order(other, 4)
    assert sorted(order(first, 4)) == list(range(10))


def test_an_epoch_resumes_at_any_batch() -> None:
    loader = BatchLoader([structure(s) for s in range(7)], batch_size=2, shuffle=True, seed=1)
    whole, rest = list(loader.epoch(3)), list(loader.epoch(3, start=2))
    assert len(whole) == len(loader) == 4
    assert len(rest) == 2
    for expected, found in zip(whole[2:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, expected, found)


def test_last_batch_is_kept_or_dropped() -> None:
    structures = [structure(seed) for seed in range(7)]
    kept = BatchLoader(structures, batch_size=3)
    dropped = BatchLoader(structures, batch_size=3, drop_last=True)
    assert [len(i) for i in kept.batch_indices(0)] == [3, 3, 1]
    assert [len(i) for i in dropped.batch_indices(0)] == [3, 3]
    assert np.concatenate(kept.batch_indices(9)).tolist() == list(range(7))
    assert [graph.graph_mask.sum() for graph in kept.epoch(0)] == [3, 3, 1]
    assert {graph.num_graphs for graph in kept.epoch(0)} == {4}


def test_small_training_set_is_one_smaller_batch() -> None:
    loader = BatchLoader([structure(0), structure(1)], batch_size=10, shuffle=True, drop_last=True)
    assert len(loader) == 1
    (graph,) = loader.epoch(0)
    assert graph.graph_mask.sum() == 2


def test_very_different_structures_in_one_file() -> None:
    structures = [structure(seed) for seed in range(30)] + [
        structure(99, num_molecules=20),
        periodic_structure(0, num_atoms=8),
    ]
    loader = BatchLoader(structures, batch_size=2, shuffle=True, seed=0)
    sizes = [loader.bucket_of(indices).atoms for indices in loader.batch_indices(0)]
    assert max(sizes) >= 60 + 3 + 1
    assert sum(size < 20 for size in sizes) >= 14
    assert len(loader.buckets) <= 4
    assert sum(graph.atom_mask.sum() for graph in loader.epoch(0)) == 30 * 3 + 60 + 8


def test_shared_buckets_hold_the_batches_of_all_loaders() -> None:
    loaders = [
        BatchLoader([structure(s) for s in range(5)], batch_size=2),
        BatchLoader([structure(s, num_molecules=4) for s in range(3)], batch_size=2),
        BatchLoader([structure(9)], batch_size=2),
    ]
    assert len({loader.buckets for loader in loaders}) == 3
    share_buckets(loaders, max_buckets=2)
    (buckets,) = {loader.buckets for loader in loaders}
    assert len(buckets) <= 2
    found = {shapes(graph) for loader in loaders for graph in loader.epoch(0)}
    assert len(found) <= 2


@pytest.mark.parametrize("options", [{"batch_size": 64}, {"batch_size": 64, "max_atoms": 25}])
def test_prediction_batches_hold_each_structure_once(options: dict) -> None:
    molecules = [1, 9, 2, 1, 3, 1, 1, 2, 4, 1]
    structures = [structure(i, num_molecules=n) for i, n in enumerate(molecules)]
    batches = list(batches_by_size(structures, **options))
    order = list(itertools.chain.from_iterable(batch.indices.tolist() for batch in batches))
    assert sorted(order) == list(range(10))
    for indices, graph in batches:
        assert graph.labels == {}
        start = 0
        for row, index in enumerate(indices):
            count = 3 * molecules[index]
            np.testing.assert_array_equal(
                graph.positions[start : start + count], structures[index].configuration.positions
            )
            assert np.all(graph.atom_graph[start : start + count] == row)
            start += count
        assert graph.atom_mask.sum() == start
        if "max_atoms" in options:
            assert start <= 25 or len(indices) == 1
    # Sizes 3, 6, 9 to 12 and 27 atoms: one shape between each two powers of two.
    assert len({shapes(graph) for _, graph in batches}) == 4


def test_prediction_without_structures_gives_no_batch() -> None:
    assert list(batches_by_size([])) == []


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(DataError, match="no structures"):
        BatchLoader([], batch_size=2)
    with pytest.raises(DataError, match="batch_size: found 0"):
        BatchLoader([structure(0)], batch_size=0)


def test_buckets_are_batch_sizes() -> None:
    loader = BatchLoader([structure(0)], batch_size=1)
    (bucket,) = loader.buckets
    assert isinstance(bucket, BatchSizes)
    assert bucket.graphs == 2


def parts_of(batch: Graph, count: int) -> list[Graph]:
    leaves, tree = jax.tree.flatten(batch)
    return [
        tree.unflatten(part) for part in zip(*(np.split(x, count) for x in leaves), strict=True)
    ]


def energies(batch: Graph) -> np.ndarray:
    return batch.labels["energy"][batch.graph_mask]


@pytest.mark.parametrize("layout", ["flat", "per_atom"])
def test_parts_hold_the_structures_of_the_whole_batch(layout: str) -> None:
    structures = [structure(seed, num_molecules=1 + seed % 2) for seed in range(5)]
    loader = BatchLoader(structures, batch_size=4, layout=layout, parts=3)
    for batch, whole in zip(loader.epoch(0), loader.undivided().epoch(0), strict=True):
        np.testing.assert_array_equal(energies(batch), energies(whole))
        for part in parts_of(batch, 3):
            assert part.num_graphs == 3  # 4 structures in 3 parts, and padding
            assert np.all(part.atom_graph[~part.atom_mask] == part.num_graphs - 1)
            assert np.all(part.senders < part.num_atoms)
            assert not part.atom_mask[part.senders[~part.edge_mask]].any()
            assert np.all(np.diff(part.receivers) >= 0)
            assert np.all(np.linalg.det(part.cell) > 0.0)
    # The last batch has one structure: two of its parts are empty.
    assert [part.graph_mask.sum() for part in parts_of(batch, 3)] == [1, 0, 0]
    assert [part.atom_mask.sum() for part in parts_of(batch, 3)] == [3, 0, 0]
    assert [part.edge_mask.sum() for part in parts_of(batch, 3)] == [structures[4].num_edges, 0, 0]


def test_a_process_makes_its_own_parts_only() -> None:
    structures = [structure(seed) for seed in range(7)]
    settings = {"batch_size": 5, "shuffle": True, "parts": 4}
    loader = BatchLoader(structures, **settings)
    shares = [
        BatchLoader(structures, **settings, own_parts=range(2 * i, 2 * i + 2)) for i in (0, 1)
    ]
    for batch, *own in zip(loader.epoch(1), *(share.epoch(1) for share in shares), strict=True):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
        jax.tree.map(np.testing.assert_array_equal, joined, batch)
    for indices in loader.batch_indices(1):
        own = [share.own(indices) for share in shares]
        np.testing.assert_array_equal(np.concatenate(own), indices)
    assert loader.own(indices).tolist() == indices.tolist()


def test_parts_come_in_few_shapes(water_ions: list[Structure]) -> None:
    loader = BatchLoader(water_ions, batch_size=8, shuffle=True, drop_last=True, parts=4)
    batches = [loader.batch_indices(epoch)[0] for epoch in range(200)]
    assert {loader.bucket_of(indices) for indices in batches} <= set(loader.buckets)
    assert len(loader.buckets) <= 4
    assert {bucket.graphs for bucket in loader.buckets} == {3}


def test_less_than_one_part_is_refused() -> None:
    with pytest.raises(DataError, match="parts: found 0, expected at least 1"):
        BatchLoader([structure(0)], batch_size=1, parts=0)
