from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from mace_scf_jax.data import sets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import StructuresInMemory
from mace_scf_jax.data.sizes import StructureSizes, required_sizes
from mace_scf_jax.data.stack import Stack, stack
from mace_scf_jax.data.structure import prepare

from .builders import configuration, labelled_atoms, periodic_structure, structure

MEMBERS = [
    structure(0),
    periodic_structure(1),
    structure(2, num_molecules=3),
    structure(3, num_molecules=2),
    prepare(configuration(Atoms("O", [[0.0, 0.0, 0.0]])), elements=(1, 8), cutoff=3.0),
]


def assert_same(one: Stack, other: Stack) -> None:
    """The same structures, of which one may hold more columns of zeros."""
    for name in ("cell", "pbc", "config_weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.atoms.counts, other.atoms.counts)
    np.testing.assert_array_equal(one.edges.counts, other.edges.counts)
    for first, second in zip(one.k_indices, other.k_indices, strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in (
        (one.atoms.entries, other.atoms.entries),
        (one.edges.entries, other.edges.entries),
        (one.values, other.values),
        (one.weights, other.weights),
    ):
        for name in first.keys() | second.keys():
            np.testing.assert_array_equal(first.get(name, 0.0), second.get(name, 0.0))


@pytest.mark.parametrize("rows", [[0], [3, 1], [4], [2, 2, 4, 0, 1]], ids=str)
def test_structures_taken_from_a_stack_are_those_stacked_alone(rows: list[int]) -> None:
    assert_same(stack(MEMBERS).take(rows), stack([MEMBERS[row] for row in rows]))


@pytest.mark.parametrize("cuts", [[], [2], [1, 4]], ids=str)
def test_stacks_joined_are_one_stack(cuts: list[int]) -> None:
    parts = np.split(np.arange(len(MEMBERS)), cuts)
    joint = Stack.concatenate(stack([MEMBERS[row] for row in rows]) for rows in parts)
    assert_same(joint, stack(MEMBERS))
    whole = stack(MEMBERS)
    for one, other in ((joint.values, whole.values), (joint.atoms.entries, whole.atoms.entries)):
        assert one.keys() == other.keys()
        assert all(one[name].dtype == column.dtype for name, column in other.items())


def test_nothing_to_stack_is_refused() -> None:
    for attempt in (stack, Stack.concatenate, StructuresInMemory):
        with pytest.raises(DataError, match="data set: found no structures"):
            attempt([])


def test_atoms_and_edges_count_within_their_structure() -> None:
    stacked = stack(MEMBERS)
    for index, entry in enumerate(MEMBERS):
        first = stacked.edges.first[index]
        edges = slice(first, first + entry.num_edges)
        np.testing.assert_array_equal(stacked.edges["senders"][edges], entry.senders)
        np.testing.assert_array_equal(stacked.edges["receivers"][edges], entry.receivers)
        first = stacked.atoms.first[index]
        positions = stacked.atoms["positions"][first : first + entry.num_atoms]
        np.testing.assert_array_equal(positions, entry.configuration.positions)


def test_only_what_differs_from_zero_is_held() -> None:
    stacked = stack([structure(0), structure(1)])
    for name in ("energy", "forces", "dipole", "atomic_multipoles"):
        assert stacked.property(name).any()
    for name in ("stress", "charges", "total_charge", "external_field"):
        assert stacked.property(name) is None
    assert "stress" not in stacked.weights
    # A label that is zero counts, and so does its weight.
    assert "total_charge" in stacked.weights


def test_multipoles_that_are_missing_have_an_order() -> None:
    atoms = labelled_atoms(0)
    del atoms.arrays["REF_atomic_multipoles"]
    stacked = stack([prepare(configuration(atoms), elements=(1, 8), cutoff=3.0)])
    assert stacked.property("atomic_multipoles") is None
    assert stacked.multipoles_max_l == 1


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("layout", ["flat", "per_atom"])
def test_sizes_are_those_of_the_structures(layout: str, padding: bool) -> None:
    expected = required_sizes(MEMBERS, layout, padding=padding)
    assert StructureSizes.of(stack(MEMBERS)).of_one_batch(layout, padding=padding) == expected


@pytest.mark.parametrize("at_once", [2, sets.STACKED_AT_ONCE])
def test_a_set_in_memory_gives_its_structures_back(monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(sets, "STACKED_AT_ONCE", at_once)
    held = StructuresInMemory(entry for entry in MEMBERS)
    assert len(held) == 5
    np.testing.assert_array_equal(held.sizes.edges, [entry.num_edges for entry in MEMBERS])
    for index in (0, 2, -1):
        expected, found = MEMBERS[index], held[index]
        assert found.configuration is expected.configuration
        for name in ("species", "senders", "receivers", "cell_shifts", "k_indices"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(IndexError, match="structure 5 of 5"):
        held[5]
