"""Batches of structures in few padded sizes, made ahead of time in the background."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import DTypeLike, Int

from mace_scf_jax.data.collate import collate, concatenate, mesh_of, padded, without_structures
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import as_set
from mace_scf_jax.data.sizes import BatchSizes, Layout, choose_buckets, merge, required_sizes
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh

__all__ = [
    "BatchLoader",
    "BatchSizes",
    "IndexedBatch",
    "batches_by_size",
    "collate",
    "prefetched",
    "required_sizes",
    "share_buckets",
]

_OBSERVED_BATCHES = 256

Item = TypeVar("Item")

_END = object()


class BatchLoader:
    """Padded batches of a data set, epoch by epoch.

    Epoch n is a pure function of the seed and n, so a run can resume at any batch. The padded
    sizes, `buckets`, are chosen once from the batches of the first epochs; when the order is
    shuffled, the last bucket holds any batch that could occur.

    For several devices a batch is made in as many parts of equal padded size, one after the other
    (`concatenate`), of which a process may make its own only. The same structures are in the batch
    however many parts there are.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        *,
        batch_size: int,
        shuffle: bool = False,
        by_size: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        layout: Layout = "flat",
        dtype: DTypeLike = np.float64,
        max_buckets: int = 4,
        repeats: bool = False,
        parts: int = 1,
        own_parts: range | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Choose the batch sizes for a data set.

        Args:
            structures: at least one; they are read when a batch needs them.
            batch_size: structures in a batch.
            shuffle: whether each epoch has its own random order.
            by_size: whether structures are in the order of their numbers of atoms, so that batches
                need little padding; not with `shuffle`.
            seed: of the random orders.
            drop_last: whether a last batch with fewer structures is left out. A data set smaller
                than one batch is one smaller batch all the same, never no batch.
            layout: order of the edges.
            dtype: of the real numbers.
            max_buckets: largest number of different padded sizes.
            repeats: whether batches of other orders, which may hold a structure several times,
                have to fit too; see `batches`.
            parts: number of parts of a batch.
            own_parts: those that are made here; None for all.
            mesh: grid of the electrostatic sums of every batch; None for direct sums.

        Raises:
            DataError: if there are no structures, or for a batch size or number of parts below 1.
        """
        if len(structures) == 0:
            raise DataError("data set: found no structures")
        if batch_size < 1:
            raise DataError(f"batch_size: found {batch_size}, expected at least 1")
        if parts < 1:
            raise DataError(f"parts: found {parts}, expected at least 1")
        self.structures = as_set(structures)
        self.batch_size = min(batch_size, len(self.structures))
        self.shuffle = shuffle
        self.by_size = by_size
        self.seed = seed
        self.drop_last = drop_last
        self.layout: Layout = layout
        self.dtype = dtype
        self.max_buckets = max_buckets
        self.repeats = repeats
        self.parts = parts
        self.mesh = mesh
        self.own_parts = range(parts) if own_parts is None else own_parts
        self.buckets = choose_buckets(
            [*self.observed_sizes(), self.largest_sizes()], max_buckets=max_buckets
        )
        """Padded sizes of the parts of batches, by increasing work."""

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.structures), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def batch_indices(self, epoch: int) -> list[Int[np.ndarray, "structures"]]:
        """Positions in the data set of the structures of each batch of an epoch."""
        order = np.arange(len(self.structures))
        if self.by_size:
            order = np.argsort(self.structures.sizes.atoms, kind="stable")
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        return self.split(order)

    def split(self, order: Int[np.ndarray, "structures"]) -> list[Int[np.ndarray, "_"]]:
        """An order of as many structures as there are, cut into batches."""
        return [
            order[start * self.batch_size : (start + 1) * self.batch_size]
            for start in range(len(self))
        ]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Graph]:
        """The batches of an epoch, from batch number `start` on."""
        return self.batches(self.batch_indices(epoch)[start:])

    def batches(self, members: Iterable[Int[np.ndarray, "_"]]) -> Iterator[Graph]:
        """The batches of given structures, each by the positions of its members in the data set."""
        for indices in members:
            bucket, divided = self.bucket_of(indices), self._divided(indices)
            yield concatenate(
                [
                    self._part(divided[number], bucket)
                    if len(divided[number])
                    else without_structures(self._part(indices[:1], bucket))
                    for number in self.own_parts
                ]
            )

    def own(self, indices: Int[np.ndarray, "structures"]) -> Int[np.ndarray, "_"]:
        """Those of the structures of a batch that are in the parts that are made here."""
        divided = self._divided(indices)
        return np.concatenate([divided[number] for number in self.own_parts])

    def undivided(self) -> BatchLoader:
        """A loader of the same batches in one part each."""
        if self.parts == 1:
            return self
        return BatchLoader(
            self.structures,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            by_size=self.by_size,
            seed=self.seed,
            drop_last=self.drop_last,
            layout=self.layout,
            dtype=self.dtype,
            max_buckets=self.max_buckets,
            repeats=self.repeats,
            mesh=self.mesh,
        )

    def bucket_of(self, indices: Int[np.ndarray, "structures"]) -> BatchSizes:
        """The first bucket that holds each part of a batch of these structures."""
        *smaller, largest = self.buckets
        if not smaller:
            return largest
        needed = self._batch_sizes(indices)
        return next((bucket for bucket in smaller if bucket.holds(needed)), largest)

    def observed_sizes(self) -> list[BatchSizes]:
        """Exact sizes of the batches of the first epochs, or of the only one without shuffling."""
        epochs = itertools.count() if self.shuffle else range(1)
        batches = (indices for epoch in epochs for indices in self.batch_indices(epoch))
        limit = _OBSERVED_BATCHES if self.shuffle else None
        return [self._batch_sizes(indices) for indices in itertools.islice(batches, limit)]

    def largest_sizes(self) -> BatchSizes:
        """Sizes that hold every part of every batch that any epoch can have."""
        if not self.shuffle:
            return merge(self.observed_sizes())
        return self.structures.sizes.of_any_batch(
            self._part_size, self.layout, repeats=self.repeats
        )

    @property
    def _part_size(self) -> int:
        """Most structures in a part."""
        return -(-self.batch_size // self.parts)

    def _divided(self, indices: np.ndarray) -> list[np.ndarray]:
        """The structures of each part, which differ by one in number; there may be empty parts."""
        return np.array_split(indices, self.parts)

    def _part(self, indices: np.ndarray, bucket: BatchSizes) -> Graph:
        batch = padded(self.structures.stack(indices), bucket, dtype=self.dtype)
        return batch.replace(mesh=self.mesh)

    def _batch_sizes(self, indices: np.ndarray) -> BatchSizes:
        """Exact sizes that hold each part of a batch, with room for the full number of graphs."""
        return merge(
            self.structures.sizes.take(part).of_one_batch(self.layout, graphs=self._part_size)
            for part in self._divided(indices)
            if len(part)
        )


def share_buckets(loaders: Sequence[BatchLoader], *, max_buckets: int = 4) -> None:
    """Give several loaders of one layout the same few padded sizes, their `buckets`.

    One compilation of each size then serves them all.
    """
    observed = [sizes for loader in loaders for sizes in loader.observed_sizes()]
    largest = merge(loader.largest_sizes() for loader in loaders)
    buckets = choose_buckets([*observed, largest], max_buckets=max_buckets)
    for loader in loaders:
        loader.buckets = buckets


class IndexedBatch(NamedTuple):
    """A batch with the original positions of its structures."""

    indices: Int[np.ndarray, "structures"]
    graph: Graph


def batches_by_size(
    structures: Sequence[Structure],
    *,
    batch_size: int = 64,
    max_atoms: int | None = None,
    layout: Layout = "flat",
    dtype: DTypeLike = np.float64,
    labels: bool = False,
) -> Iterator[IndexedBatch]:
    """Batches of structures of similar size, each structure once, for prediction.

    Structures whose numbers of atoms lie between the same two powers of two are batched together
    and padded to one size, so there are few sizes however different the structures are.

    Args:
        structures: any number.
        batch_size: most structures in a batch.
        max_atoms: most atoms in a batch of several structures; None for no limit.
        layout: order of the edges.
        dtype: of the real numbers.
        labels: whether to include reference values and weights.
    """
    classes: dict[int, list[int]] = defaultdict(list)
    for index, entry in enumerate(structures):
        classes[(entry.num_atoms - 1).bit_length()].append(index)
    for _, members in sorted(classes.items()):
        largest = max(structures[index].num_atoms for index in members)
        count = batch_size if max_atoms is None else min(batch_size, max_atoms // largest)
        count = max(1, count)
        chunks = [np.array(members[i : i + count]) for i in range(0, len(members), count)]
        batches = [[structures[index] for index in chunk] for chunk in chunks]
        sizes = merge(required_sizes(batch, layout) for batch in batches).rounded()
        mesh = mesh_of([structures[index] for index in members])
        for chunk, batch in zip(chunks, batches, strict=True):
            yield IndexedBatch(chunk, collate(batch, sizes, dtype=dtype, labels=labels, mesh=mesh))


def prefetched(items: Iterable[Item], *, depth: int = 8) -> Iterator[Item]:
    """The same items in the same order, made ahead of time by a thread.

    They are made in bursts: when half of the places for waiting items (rounded down, but at least
    one) are free, the thread fills them one after the other. Beside a step that keeps all
    processors busy, an item of a fraction of a millisecond takes several times as long when it is
    made alone, with caches that hold none of its code and data.

    What making an item raises is raised where that item would have come. When the iterator is
    closed or forgotten, the thread ends.

    Args:
        items: made one by one.
        depth: how many may wait; with the one in the making there are ``depth + 1`` in memory
            besides the one in use.

    Raises:
        ValueError: if the depth is not positive.
    """
    if depth < 1:
        raise ValueError(f"depth: found {depth}, expected at least 1")
    return _prefetched(items, depth)


def _prefetched(items: Iterable[Item], depth: int) -> Iterator[Item]:
    # Queues that need no lock of Python: whoever takes what is there never waits for the other
    # thread, which on a busy machine may have to wait for a processor itself.
    made: queue.SimpleQueue = queue.SimpleQueue()
    places: queue.SimpleQueue = queue.SimpleQueue()
    no_longer_wanted = threading.Event()

    def make() -> None:
        try:
            for item in items:
                places.get()
                if no_longer_wanted.is_set():
                    return
                made.put((item, None))
            made.put((_END, None))
        except BaseException as error:  # Raised again in the thread that wants the items.
            made.put((_END, error))

    def free_places(count: int) -> None:
        for _ in range(count):
            places.put(None)

    free_places(depth)
    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    burst, taken = max(1, depth // 2), 0
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            taken += 1
            if taken % burst == 0:
                free_places(burst)
            yield item
    finally:
        no_longer_wanted.set()
        free_places(1)
        if thread is not threading.current_thread():  # which may collect a forgotten iterator
            thread.join()
