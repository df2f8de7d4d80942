from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import (
    BatchSizes,
    choose_buckets,
    merge,
    required_sizes,
    round_up,
)

from .builders import periodic_structure, structure


def sizes(scale: int) -> BatchSizes:
    return BatchSizes(atoms=scale, edges=10 * scale, graphs=5, slots=4, kvectors=0)


def test_round_up_wastes_at_most_one_sixteenth() -> None:
    numbers = range(0, 5000)
    rounded = [round_up(number) for number in numbers]
    assert all(n <= r <= n + n / 16 for n, r in zip(numbers, rounded, strict=True))
    assert [round_up(r) for r in rounded] == rounded
    assert rounded == sorted(rounded)
    assert len(set(rounded)) < 170


def test_required_sizes_leave_room_for_padding() -> None:
    batch = [structure(0), structure(1, num_molecules=2), periodic_structure()]
    flat = required_sizes(batch)
    assert flat == BatchSizes(
        atoms=3 + 6 + 4 + 1,
        edges=sum(entry.num_edges for entry in batch),
        graphs=4,
        slots=6,
        kvectors=max(entry.num_kvectors for entry in batch),
    )
    per_atom = required_sizes(batch, "per_atom")
    most = max(int(entry.neighbour_counts().max()) for entry in batch)
    assert per_atom.neighbours_per_atom == most
    assert per_atom.edges == 14 * most


def test_rounding_keeps_the_layouts_consistent() -> None:
    exact = BatchSizes(
        atoms=101, edges=101 * 37, graphs=3, slots=60, kvectors=0, neighbours_per_atom=37
    )
    rounded = exact.rounded()
    assert rounded.edges == rounded.atoms * rounded.neighbours_per_atom
    assert rounded.holds(exact)
    assert not exact.holds(rounded)
    assert rounded.graphs == 3


def test_room_for_more_neighbours() -> None:
    exact = BatchSizes(
        atoms=101, edges=101 * 37, graphs=1, slots=101, kvectors=97, neighbours_per_atom=37
    )
    roomy = exact.with_room(0.2)
    assert roomy.holds(exact)
    assert roomy.edges >= 1.2 * exact.edges
    assert (roomy.atoms, roomy.slots, roomy.kvectors) == (101, 101, 100)
    waves = exact.with_room(0.2, kvectors=0.3)
    assert waves.kvectors >= 1.3 * exact.kvectors
    assert dataclasses.replace(waves, kvectors=roomy.kvectors) == roomy
    assert exact.with_atoms(120).edges == 120 * 37


def test_merge_holds_all() -> None:
    parts = [
        BatchSizes(atoms=3, edges=50, graphs=2, slots=2, kvectors=7),
        BatchSizes(atoms=9, edges=20, graphs=3, slots=1, kvectors=0),
    ]
    assert merge(parts) == BatchSizes(atoms=9, edges=50, graphs=3, slots=2, kvectors=7)
    assert all(merge(parts).holds(part) for part in parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atoms": 0}, "atoms: found 0, expected at least 1"),
        ({"kvectors": -1}, "kvectors: found -1"),
        ({"neighbours_per_atom": 3}, "expected their product"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, message: str) -> None:
    good = {"atoms": 3, "edges": 8, "graphs": 2, "slots": 2, "kvectors": 1}
    with pytest.raises(DataError, match=message):
        BatchSizes(**(good | change))


def test_layouts_cannot_be_merged() -> None:
    per_atom = BatchSizes(atoms=2, edges=6, graphs=2, slots=1, kvectors=0, neighbours_per_atom=3)
    with pytest.raises(DataError, match="both layouts"):
        merge([sizes(2), per_atom])


def test_one_bucket_is_enough_for_similar_batches() -> None:
    needed = [sizes(scale) for scale in (60, 61, 62, 63, 64)]
    assert choose_buckets(needed, max_buckets=4) == (sizes(64),)


def test_buckets_separate_small_from_large_batches() -> None:
    needed = [sizes(16)] * 30 + [sizes(256)] * 3 + [sizes(250)]
    assert choose_buckets(needed, max_buckets=4) == (sizes(16), sizes(256))
    assert choose_buckets(needed, max_buckets=1) == (sizes(256),)


def test_buckets_are_optimal_and_hold_every_batch() -> None:
    rng = np.random.default_rng(0)
    needed = [
        BatchSizes(atoms=int(a), edges=int(e), graphs=9, slots=int(s), kvectors=int(k)).rounded()
        for a, e, s, k in zip(
            rng.integers(10, 400, 12),
            rng.integers(50, 6000, 12),
            rng.integers(3, 90, 12),
            rng.integers(0, 300, 12),
            strict=True,
        )
    ]
    buckets = choose_buckets(needed, max_buckets=3, tolerance=0.0)
    assert len(buckets) == 3
    assert all(large.holds(small) for small, large in itertools.pairwise(buckets))

    ordered = sorted(needed, key=BatchSizes.work)
    work = [merge(ordered[: end + 1]).rounded().work() for end in range(12)]
    best = min(
        (i + 1) * work[i] + (j - i) * work[j] + (11 - j) * work[11]
        for i, j in itertools.combinations(range(11), 2)
    )
    # Not equal: a batch may fit a smaller bucket than that of its group.
    found = sum(next(b for b in buckets if b.holds(sizes)).work() for sizes in needed)
    assert 0.8 * best < found <= best * (1.0 + 1e-12)


def test_many_batches_are_cut_quickly_and_all_held() -> None:
    needed = [sizes(10 + scale % 700) for scale in range(5000)]
    buckets = choose_buckets(needed, max_buckets=4, tolerance=0.0)
    assert len(buckets) == 4
    assert buckets[-1] == sizes(709).rounded()
    total = sum(next(b for b in buckets if b.holds(n)).work() for n in needed)
    assert total < 1.3 * sum(n.work() for n in needed)


def test_unknown_layout_is_refused() -> None:
    with pytest.raises((DataError, TypeError), match="layout"):
        required_sizes([structure(0)], "dense")


def test_at_least_one_bucket_is_asked_for() -> None:
    with pytest.raises(DataError, match="max_buckets: found 0"):
        choose_buckets([sizes(3)], max_buckets=0)
