"""Simulations with electrostatic sums on a mesh: the same numbers everywhere, changing cells."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import assert_close, periodic, tiny_model

import mace_scf_jax
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.predict.stablehlo import export_stablehlo
from mace_scf_jax.simulate import CoulombCalculator, MACESCFCalculator
from mace_scf_jax.simulate.jax_md_hooks import jax_md_functions

STRAIN = 0.1


@pytest.fixture(scope="module")
def prediction():
    return tiny_model().with_sums("mesh").predict(periodic(), stress=True)


def test_every_interface_gives_the_numbers_of_a_prediction(prediction):
    model, atoms = tiny_model(), periodic()
    energy_fn, prepare = mace_scf_jax.energy_function(model, sums="mesh")
    neighbours = prepare(atoms)
    assert neighbours.graph.mesh is not None
    assert neighbours.graph.k_indices.shape[1] == 0
    results = energy_fn.results(jnp.asarray(atoms.positions), neighbours, stress=True)
    assert bool(results.valid)
    atoms.calc = MACESCFCalculator(model, sums="mesh")
    neighbor_fn, jax_md_energy = jax_md_functions(model, periodic(), sums="mesh")
    neighbor = neighbor_fn.allocate(atoms.positions)
    energies = [results.energy, atoms.get_potential_energy()]
    energies += [jax_md_energy(atoms.positions, neighbor=neighbor)]
    assert_close(np.array(energies, float), prediction["energy"], 1e-12)
    for forces in (results.forces, atoms.get_forces()):
        assert_close(forces, prediction["forces"], 1e-9)
    assert_close(results.stress, prediction["stress"], 1e-9)


def test_a_mesh_serves_the_cells_that_it_is_prepared_for():
    """Within the range the numbers are those of a mesh for the cell itself; beyond, NaN."""
    model, atoms = tiny_model().with_sums("mesh"), periodic()
    energy_fn, prepare = mace_scf_jax.energy_function(model, largest_strain=STRAIN, skin=1.5)
    neighbours = prepare(atoms)
    evaluate = jax.jit(lambda x, cell: energy_fn.results(x, neighbours, cell=cell))
    tensor = np.diag([STRAIN, -0.5 * STRAIN, 0.0])
    tensor[0, 1] = tensor[1, 0] = 0.02
    strained = atoms.copy()
    strained.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + 0.9 * tensor), scale_atoms=True)
    results = evaluate(jnp.asarray(strained.positions), jnp.asarray(strained.cell.array))
    assert bool(results.valid)
    expected = model.predict(strained)
    assert_close(results.forces, expected["forces"], 2e-5)
    far = np.asarray(atoms.cell) @ np.diag([1.6, 1.0, 1.0])
    assert not bool(neighbours.serves_cell(jnp.asarray(far)))
    assert np.isnan(evaluate(jnp.asarray(atoms.positions), jnp.asarray(far)).energy)


def test_fixed_multipoles_on_a_mesh():
    atoms = periodic()
    rng = np.random.default_rng(0)
    atoms.arrays["multipoles"] = 0.3 * rng.normal(size=(len(atoms), 4))
    found = {}
    for sums in ("direct", "mesh"):
        settings = ElectrostaticsSettings(
            max_l=1, smearing_width=1.0, kspace_cutoff_factor=2.5, sums=sums
        )
        atoms.calc = CoulombCalculator(settings)
        found[sums] = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    for mesh, direct in zip(found["mesh"], found["direct"], strict=True):
        assert_close(mesh, direct, 1e-5)
        assert np.any(mesh != direct)


def test_exported_functions_keep_the_mesh(prediction):
    model = tiny_model().with_sums("mesh")
    structure = model.prepare(from_atoms(periodic()))
    exported = export_stablehlo(model, structure, platforms=("cpu",))
    outputs = exported.function.call(**exported.inputs)
    assert_close(outputs["energy"], prediction["energy"], 1e-12)
    assert_close(outputs["forces"][:5], prediction["forces"], 1e-9)
