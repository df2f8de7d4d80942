"""Neighbours found on the device are those found on the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.data.structure import neighbour_list, search_box
from mace_scf_jax.simulate.neighbours import images_needed, search

CELLS = {
    "small skewed": np.array([[3.0, 0.0, 0.0], [1.4, 2.8, 0.0], [-0.9, 0.7, 3.1]]),
    "large skewed": np.array([[11.0, 0.0, 0.0], [3.0, 10.5, 0.0], [-2.0, 1.0, 12.0]]),
    "flat": np.array([[2.2, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 15.0]]),
}
PERIODICITIES = [(True, True, True), (True, True, False), (False, True, False), (False,) * 3]


@pytest.mark.parametrize("pbc", PERIODICITIES)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_same_edges_in_the_same_order(cell, pbc):
    rng = np.random.default_rng(0)
    pbc = np.array(pbc)
    cell = np.where(pbc[:, None], cell, 0.0)
    positions = rng.uniform(-4.0, 4.0, size=(7, 3))  # not wrapped
    senders, receivers, shifts = neighbour_list(positions, cell, pbc, 4.0)
    box = search_box(cell, pbc)
    capacity = int(np.bincount(receivers, minlength=7).max())
    found = search(
        jnp.asarray(positions),
        jnp.asarray(box),
        jnp.asarray(pbc),
        4.0,
        images=images_needed(box, pbc, 4.0),
        capacity=capacity,
    )
    found_senders, found_shifts, mask, most = jax.device_get(found)
    assert most == capacity
    np.testing.assert_array_equal(np.nonzero(mask)[0], receivers)
    np.testing.assert_array_equal(found_senders[mask], senders)
    np.testing.assert_array_equal(found_shifts[mask], shifts)


def test_a_list_too_short_is_noticed():
    positions = jnp.asarray(np.random.default_rng(0).uniform(0.0, 3.0, size=(6, 3)))
    *_, most = search(positions, jnp.eye(3), jnp.zeros(3, bool), 10.0, images=(0, 0, 0), capacity=2)
    assert most == 5
