"""Making the next batches in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


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
