"""Making the next batches in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_END = object()
_LOOK_AGAIN = 0.1
"""Seconds after which a waiting thread looks whether its items are still wanted."""


def prefetched(items: Iterable[Item], *, depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, made ahead of time by a thread.

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
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    no_longer_wanted = threading.Event()

    def hand_over(item: object) -> bool:
        """Wait for a place in the queue; whether there was one."""
        while not no_longer_wanted.is_set():
            try:
                waiting.put(item, timeout=_LOOK_AGAIN)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not hand_over((item, None)):
                    return
            hand_over((_END, None))
        except BaseException as error:  # Raised again in the thread that wants the items.
            hand_over((_END, error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        no_longer_wanted.set()
        thread.join()
