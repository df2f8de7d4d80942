"""The Coulomb energy as a quadratic form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    prepare_batch,
    system_coulomb_gradient,
    system_coulomb_matrix,
    system_energy,
)

from .systems import Sizes, batch, random_system
from .tolerances import IDENTITY, assert_close

CRYSTAL, SLAB, OPEN = (True, True, True), (True, True, False), (False, False, False)


def prepared(boundary: str, pbc: tuple[bool, bool, bool], *, self_interaction: bool = True):
    """Three atoms in four slots, and what they were prepared with."""
    settings = ElectrostaticsSettings(
        max_l=1,
        smearing_width=1.1,
        kspace_cutoff_factor=0.8,
        boundary=boundary,
        include_self_interaction=self_interaction,
    )
    periodic = boundary != "realspace"
    sizes = Sizes(atoms=4, graphs=1, slots=4, kvectors=200 if periodic else 0)
    system = random_system(3, 3, length=5.0, skew=0.0, pbc=pbc)
    graph, _ = batch([system], settings.kspace_cutoff if periodic else None, sizes)
    return jax.tree.map(lambda value: value[0], prepare_batch(graph, settings=settings))


@pytest.mark.parametrize(
    ("boundary", "pbc", "self_interaction"),
    [
        ("mixed_periodic", CRYSTAL, True),
        ("mixed_periodic", SLAB, False),
        ("mixed_periodic", OPEN, True),
        ("realspace", OPEN, True),
        ("realspace", OPEN, False),
    ],
)
def test_matrix_is_the_second_derivative_of_the_energy(boundary, pbc, self_interaction):
    system = prepared(boundary, pbc, self_interaction=self_interaction)
    matrix = jax.jit(system_coulomb_matrix)(system)
    zero = jnp.zeros(matrix.shape[:2])
    expected = jax.jit(jax.hessian(system_energy, argnums=1))(system, zero)
    assert float(np.max(np.abs(expected))) > 0.5
    assert_close(matrix, expected, IDENTITY)
    assert np.all(np.asarray(matrix)[~np.asarray(system.atom_mask)] == 0.0)


def test_gradient_of_a_padded_system():
    system = prepared("mixed_periodic", OPEN)
    multipoles = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    gradient = jax.jit(system_coulomb_gradient)(system, multipoles)
    matrix = jax.jit(system_coulomb_matrix)(system)
    expected = np.einsum("iajb,jb->ia", matrix, multipoles)
    assert_close(gradient, expected, IDENTITY)


def test_only_phases_in_memory_give_pair_sums():
    system = prepared("mixed_periodic", CRYSTAL)
    assert system.has_pair_sums
    sums = dataclasses.replace(system.sums, phases=None)
    in_chunks = dataclasses.replace(system, sums=sums)
    assert not in_chunks.has_pair_sums
    with pytest.raises(ValueError, match="sums are made in chunks"):
        system_coulomb_matrix(in_chunks)
