"""Energies of charges compared with another implementation of the Ewald sum."""

from __future__ import annotations

import ase
import jax
import jaxpme
import numpy as np

from mace_scf_jax.electrostatics import ElectrostaticsSettings, batch_coulomb_energy
from mace_scf_jax.units import COULOMB_CONSTANT

from .systems import System, batch


def test_charges_in_a_skewed_cell_have_the_energy_of_jax_pme():
    rng = np.random.default_rng(8)
    cell = np.array([[4.2, 0.0, 0.0], [0.7, 3.9, 0.0], [-0.4, 0.9, 4.5]])
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], dtype=float)
    positions = (fractional + rng.uniform(-0.05, 0.05, (4, 3))) @ cell
    charges = rng.normal(size=4)
    charges -= charges.mean()

    atoms = ase.Atoms("H4", positions=positions, cell=cell, pbc=True)
    ewald = jaxpme.Ewald(prefactor=COULOMB_CONSTANT)
    inputs = ewald.prepare(atoms, charges, 10.0, lr_wavelength=0.5, smearing=1.0)
    with jax.numpy_dtype_promotion("standard"):
        energy, forces = ewald.energy_forces(*inputs)

    # Gaussians narrow enough to be point charges for each other.
    settings = ElectrostaticsSettings(
        max_l=0,
        smearing_width=0.14,
        kspace_cutoff_factor=2.6,
        boundary="pbc",
        include_self_interaction=False,
    )
    graph, multipoles = batch([System(positions, charges[:, None], cell)], settings.kspace_cutoff)

    @jax.jit
    def energy_and_gradient(positions):
        def total(positions):
            moved = graph.replace(positions=positions)
            return batch_coulomb_energy(moved, multipoles, settings=settings)[0]

        return jax.value_and_grad(total)(positions)

    our_energy, gradient = energy_and_gradient(graph.positions)
    np.testing.assert_allclose(our_energy, energy, rtol=1e-9)
    np.testing.assert_allclose(-gradient, forces, rtol=0.0, atol=1e-8 * np.abs(forces).max())
