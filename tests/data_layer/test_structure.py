from __future__ import annotations

import ase
import numpy as np
import pytest

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.data.structure import neighbour_list, prepare, prepare_all

from .builders import configuration, labelled_atoms


def test_prepared_structure_holds_species_edges_and_reciprocal_indices() -> None:
    entry = configuration(labelled_atoms(num_molecules=2))
    found = prepare(entry, elements=(1, 6, 8), cutoff=3.0, kspace_cutoff=0.5)
    assert found.species.tolist() == [2, 0, 0, 2, 0, 0]
    senders, receivers, shifts = neighbour_list(entry.positions, entry.cell, entry.pbc, 3.0)
    np.testing.assert_array_equal(found.senders, senders)
    np.testing.assert_array_equal(found.receivers, receivers)
    np.testing.assert_array_equal(found.cell_shifts, shifts)
    np.testing.assert_array_equal(found.k_indices, half_space_indices(entry.cell, 0.5))
    assert found.neighbour_counts().sum() == found.num_edges > 6
    assert found.configuration is entry


def test_reciprocal_indices_only_where_a_cutoff_is_given() -> None:
    slab = ase.Atoms("H", cell=[3.0, 3.0, 0.0], pbc=[True, True, False])
    entry = configuration(slab)
    assert prepare(entry, elements=(1,), cutoff=4.0).num_kvectors == 0
    with pytest.raises(DataError, match=r"some\.xyz, configuration 2: cell: .*no volume"):
        prepare(entry, elements=(1,), cutoff=4.0, kspace_cutoff=1.0)


def test_unknown_element_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"some\.xyz, configuration 2: found element O, unknown to the model.*knows H, C",
    ):
        prepare(configuration(labelled_atoms()), elements=(1, 6), cutoff=3.0)


def test_elements_must_ascend() -> None:
    with pytest.raises(DataError, match="expected ascending"):
        prepare(configuration(labelled_atoms()), elements=(8, 1), cutoff=3.0)


@pytest.mark.parametrize("pbc", [False, True])
def test_coincident_atoms_are_refused(pbc: bool) -> None:
    positions = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 4.0 * pbc]]
    atoms = ase.Atoms("H3", positions=positions, cell=[4.0] * 3, pbc=pbc)
    with pytest.raises(DataError, match="found atoms 1 and 2 at the same position"):
        prepare(configuration(atoms), elements=(1,), cutoff=2.0)


def test_prepare_all_keeps_the_order() -> None:
    entries = [configuration(labelled_atoms(seed, num_molecules=1 + seed)) for seed in range(3)]
    found = prepare_all(entries, elements=(1, 8), cutoff=3.0)
    assert [entry.num_atoms for entry in found] == [3, 6, 9]
