from __future__ import annotations

import gc
import sys
import threading

import pytest

from mace_scf_jax.data.batching import prefetched


def batch_threads() -> int:
    return sum(thread.name == "batches" for thread in threading.enumerate())


def test_items_keep_their_order_and_come_from_another_thread():
    threads = set()

    def items():
        for number in range(20):
            threads.add(threading.current_thread().name)
            yield number

    assert list(prefetched(items())) == list(range(20))
    assert threads == {"batches"}
    assert batch_threads() == 0


def test_items_are_made_ahead_but_not_further_than_the_depth():
    made, third, fifth = [], threading.Event(), threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 3:
                third.set()
            if number == 4:
                fifth.set()
            yield number

    iterator = prefetched(items(), depth=2)
    assert next(iterator) == 0
    assert third.wait(10.0)
    assert not fifth.wait(0.5)
    assert made == [0, 1, 2, 3]
    assert list(iterator) == list(range(1, 10))


def test_items_are_made_in_bursts():
    """With four places, the thread goes on when two are free."""
    made, fifth, seventh = [], threading.Event(), threading.Event()

    def items():
        for number in range(12):
            made.append(number)
            if number == 4:
                fifth.set()
            if number == 6:
                seventh.set()
            yield number

    iterator = prefetched(items(), depth=4)
    assert next(iterator) == 0
    assert fifth.wait(10.0)
    assert not seventh.wait(0.5)
    assert made == [0, 1, 2, 3, 4]
    assert next(iterator) == 1
    assert seventh.wait(10.0)
    assert list(iterator) == list(range(2, 12))


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise KeyError("second")

    iterator = prefetched(items())
    assert next(iterator) == 1
    with pytest.raises(KeyError, match="second"):
        next(iterator)
    assert batch_threads() == 0


def test_a_closed_iterator_leaves_no_thread():
    iterator = prefetched(iter(range(1000)))
    assert next(iterator) == 0
    assert batch_threads() == 1
    iterator.close()
    assert batch_threads() == 0


def test_a_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth: found 0"):
        prefetched([], depth=0)


def test_a_thread_may_collect_the_iterator_that_it_works_for(monkeypatch) -> None:
    """Garbage is collected by whichever thread allocates, so also by the one that makes items."""
    raised, forgotten = [], threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda info: raised.append(info.exc_value))

    def items():
        yield 0
        forgotten.wait()
        gc.collect()
        yield 1

    gc.disable()
    gc.freeze()  # what other tests left behind is not looked through
    try:
        cycle: list = [prefetched(items())]
        cycle.append(cycle)
        assert next(cycle[0]) == 0
        (thread,) = (entry for entry in threading.enumerate() if entry.name == "batches")
        del cycle
        forgotten.set()
        thread.join(timeout=10.0)
        assert not thread.is_alive()
    finally:
        gc.unfreeze()
        gc.enable()
    assert raised == []
