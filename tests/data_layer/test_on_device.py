from __future__ import annotations

import ase
import jax
import numpy as np
import pytest

from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.on_device import chosen, size_of_whole, whole_set
from mace_scf_jax.data.sets import StructuresInMemory
from mace_scf_jax.data.structure import prepare_all

from .builders import WATER_IONS, read_configurations


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_batches_are_those_of_the_host(dtype: type) -> None:
    """Bit for bit, with labels and reciprocal vectors, in every bucket, also if not full."""
    configurations = read_configurations(WATER_IONS)[::12]
    structures = StructuresInMemory(
        prepare_all(configurations, elements=(1, 8, 11, 17), cutoff=5.0, kspace_cutoff=0.8)
    ).without_edges()
    loader = BatchLoader(structures, batch_size=4, shuffle=True, layout="per_atom", dtype=dtype)
    whole = whole_set(structures, dtype=dtype, mesh=None)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(whole))
    assert 0.3 * held < size_of_whole(structures) < 2.0 * held
    put_together = jax.jit(chosen, static_argnames="sizes")
    indices = loader.batch_indices(0)
    assert len(indices[-1]) < 4
    for rows in (*indices[:3], indices[-1], np.array([1, 1, 0, 1])):
        for sizes in loader.buckets:
            if not sizes.holds(structures.sizes.take(rows).of_one_batch("per_atom", graphs=4)):
                continue
            loader.buckets = (sizes,)
            (expected,) = loader.batches([rows])
            found = put_together(whole, rows.astype(np.int32), sizes=sizes)
            jax.tree.map(
                lambda one, other: np.testing.assert_array_equal(one, other, strict=True),
                jax.device_get(found),
                jax.tree.map(np.asarray, expected),
            )


def test_the_size_counts_what_the_largest_structure_demands_of_all() -> None:
    """Every structure has as many places for atoms as the largest one."""
    atoms = [ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]) for _ in range(200)]
    atoms.append(ase.Atoms("H400", 3.0 * np.indices((10, 10, 4)).reshape(3, -1).T))
    structures = StructuresInMemory(
        prepare_all([from_atoms(it) for it in atoms], elements=(1,), cutoff=2.0)
    ).without_edges()
    whole = whole_set(structures, dtype=np.float64, mesh=None)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(whole))
    assert 0.3 * held < size_of_whole(structures) < 2.0 * held
