"""Boundary condition exact on grids: slabs, and open structures in N log N."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    MeshError,
    choose_mesh,
    choose_open_mesh,
    prepare,
    system_energy,
    system_field_features,
    system_potential,
)
from mace_scf_jax.mesh import common_open_mesh

from .systems import random_system
from .test_exact import everything, longer_tails, other_axis, slab
from .tolerances import assert_close

SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.0,
    kspace_cutoff_factor=2.5,
    boundary="exact",
    features=FieldFeatureSettings(max_l=1, widths=(1.0, 1.5)),
)
ON_MESH = dataclasses.replace(SETTINGS, sums="mesh")
OPEN = (False, False, False)


def cluster(num_atoms=6, length=7.0, seed=3):
    return random_system(seed, num_atoms, length=length, pbc=OPEN)


def outputs(system, settings, open_mesh=None):
    """Energy, forces, features and potentials of an open structure."""

    def geometry(positions):
        return prepare(
            positions,
            jnp.ones(len(positions), bool),
            jnp.eye(3),
            jnp.zeros(3, bool),
            jnp.zeros((0, 3), int),
            jnp.zeros(0, bool),
            jnp.asarray(jnp.inf),
            settings=settings,
            open_mesh=open_mesh,
        )

    @jax.jit
    def evaluate(positions, p):
        energy, gradient = jax.value_and_grad(lambda r: system_energy(geometry(r), p))(positions)
        system = geometry(positions)
        return {
            "energy": energy,
            "forces": -gradient,
            "features": system_field_features(system, p),
            "potentials": system_potential(system, p),
        }

    return evaluate(jnp.asarray(system.positions), jnp.asarray(system.multipoles))


def test_open_structure_on_a_grid_is_the_sum_over_pairs():
    system = cluster()
    mesh = choose_open_mesh(ON_MESH, system.positions)
    expected, found = outputs(system, SETTINGS), outputs(system, ON_MESH, mesh)
    for name, values in expected.items():
        assert_close(found[name], values, ON_MESH.mesh_accuracy)
    # Somewhere else, and longer: the same grid, no box.
    moved = system.replace(positions=system.positions * [1.01, 1.0, 0.9] + [50.0, -20.0, 3.3])
    expected, found = outputs(moved, SETTINGS), outputs(moved, ON_MESH, mesh)
    for name, values in expected.items():
        assert_close(found[name], values, ON_MESH.mesh_accuracy)
    outgrown = moved.replace(positions=moved.positions * 3.0)
    assert np.isnan(outputs(outgrown, ON_MESH, mesh)["energy"])


def test_slabs_on_a_grid():
    systems = [slab(), other_axis(slab(7))]
    direct = everything(systems, settings=SETTINGS, sizes=None)
    cells = [
        coulomb_cell(system.positions, system.cell, np.array(system.pbc), ON_MESH.tails)[0]
        for system in systems
    ]
    mesh = choose_mesh(ON_MESH, np.stack(cells), 4)
    on_mesh = everything(systems, settings=ON_MESH, sizes=None, mesh=mesh)
    for found, expected in zip(on_mesh, direct, strict=True):
        for name, values in expected.items():
            assert_close(found[name], values, 2.0 * ON_MESH.mesh_accuracy)


def test_jump_where_a_slab_gets_a_longer_repeat():
    """A grid jumps by no more than its accuracy."""
    system, found = slab(), []
    for tails in (ON_MESH.tails, longer_tails(slab(), ON_MESH)):
        cell, _ = coulomb_cell(system.positions, system.cell, np.array(system.pbc), tails)
        mesh = choose_mesh(ON_MESH, cell, 4)
        found += everything([system], settings=ON_MESH, sizes=None, mesh=mesh, tails=tails)
    before, after = found
    for name, values in before.items():
        assert np.max(np.abs(after[name] - values)) > 0.0
        assert_close(after[name], values, ON_MESH.mesh_accuracy)


def test_a_grid_is_shared_by_what_it_serves():
    small, large = cluster(), cluster(length=12.0)
    meshes = [choose_open_mesh(ON_MESH, system.positions) for system in (small, large)]
    shared = common_open_mesh([None, *meshes])
    for system in (small, large):
        assert bool(shared.serves(jnp.asarray(system.positions), jnp.ones(6, bool)))
    assert not bool(meshes[0].serves(jnp.asarray(large.positions), jnp.ones(6, bool)))
    assert common_open_mesh([None, meshes[0], None]) is meshes[0]
    assert choose_open_mesh(SETTINGS, large.positions) is None
    automatic = dataclasses.replace(SETTINGS, sums="auto")
    assert choose_open_mesh(automatic, large.positions) is None
    assert choose_open_mesh(automatic, np.random.default_rng(0).normal(size=(3000, 3))) is not None
    with pytest.raises(MeshError, match="grid points for an open structure with a diameter of"):
        choose_open_mesh(ON_MESH, np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 5000.0]]))
