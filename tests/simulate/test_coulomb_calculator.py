"""The Coulomb calculator gives the numbers of the reference, and keeps to what it was told."""

from __future__ import annotations

import math
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from tiny_models import assert_close, periodic

from mace_scf_jax.data.cells import volume
from mace_scf_jax.electrostatics import BoundaryError, ElectrostaticsSettings
from mace_scf_jax.pytorch.verification.electrostatics import reference_electrostatics
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.simulate import CoulombCalculator
from mace_scf_jax.units import COULOMB_CONSTANT

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "electrostatics"
CHARGES = ElectrostaticsSettings(
    max_l=0, smearing_width=0.9, boundary="auto", include_self_interaction=False
)


def pair(distance: float = 1.7) -> ase.Atoms:
    return ase.Atoms("H2", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, distance]])


@pytest.mark.parametrize("name", ["pbc_l1_no_self", "slab_l1", "realspace_l1"])
def test_numbers_of_the_reference(name):
    file = read_reference_file(REFERENCE / f"{name}.npz")
    own = file.inputs["graph_index"] == 0
    atoms = ase.Atoms(f"H{own.sum()}", positions=file.inputs["positions"][own])
    has_cell = "cell" in file.inputs
    if has_cell:
        atoms.cell, atoms.pbc = file.inputs["cell"][0], file.inputs["pbc"][0]
    atoms.arrays["multipoles"] = file.inputs["multipoles"][own]
    # the field features of the file set its reciprocal cutoff
    atoms.calc = CoulombCalculator(reference_electrostatics(file.meta))
    expected = file.outputs
    # the reference's closed form of open boundary differs by its own round-off
    tolerance = 1e-9 if has_cell else 1e-6
    assert_close(atoms.get_potential_energy(), expected["energy"][0], tolerance)
    assert_close(atoms.get_forces(), -expected["denergy_dpositions"][own], tolerance)
    if "electrostatic_potential" in expected:
        found = atoms.calc.results["electrostatic_potentials"]
        assert_close(found, expected["electrostatic_potential"][own], tolerance)
    if has_cell:
        strain = expected["denergy_dstrain"][0]
        stress = 0.5 * (strain + strain.T) / volume(file.inputs["cell"][0])
        assert_close(atoms.get_stress(), full_3x3_to_voigt_6_stress(stress), tolerance)


def test_a_pair_and_what_is_set_wins():
    atoms = pair()
    atoms.arrays["multipoles"] = np.array([[1.5], [-0.7]])
    atoms.calc = calculator = CoulombCalculator(CHARGES)
    unit = COULOMB_CONSTANT * math.erf(1.7 / 1.8) / 1.7
    np.testing.assert_allclose(atoms.get_potential_energy(), -1.05 * unit, rtol=1e-12)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    np.testing.assert_allclose(atoms.get_charges(), [1.5, -0.7])

    atoms.arrays["multipoles"][1] = -1.5  # in place
    np.testing.assert_allclose(atoms.get_potential_energy(), -2.25 * unit, rtol=1e-12)
    atoms.info["external_field"] = [0.0, 0.0, 0.2]
    in_field = -2.25 * unit - 1.5 * 1.7 * 0.2
    np.testing.assert_allclose(atoms.get_potential_energy(), in_field, rtol=1e-12)
    np.testing.assert_allclose(atoms.get_dipole_moment(), [0.0, 0.0, -2.55])
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0.0, atol=1e-12)

    calculator.set_external_field([0.0, 0.0, 0.0])
    calculator.set_multipoles(np.array([[1.0], [1.0]]))
    np.testing.assert_allclose(atoms.get_potential_energy(), unit, rtol=1e-12)


def test_forces_and_stress_are_derivatives():
    atoms = periodic()
    atoms.arrays["multipoles"] = np.random.default_rng(0).normal(size=(5, 4))
    # at this cutoff it does not matter that strained cells have other reciprocal vectors
    settings = ElectrostaticsSettings(
        max_l=1, smearing_width=1.6, kspace_cutoff_factor=3.0, boundary="pbc"
    )
    atoms.calc = CoulombCalculator(settings)
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    step = 1e-4

    def energy(change):
        moved = atoms.copy()
        moved.calc = atoms.calc
        change(moved)
        return moved.get_potential_energy()

    def shift(sign):
        return energy(lambda moved: moved.positions.__setitem__((2, 1), sign * step + y))

    y = atoms.positions[2, 1]
    assert_close(forces[2, 1], (shift(-1) - shift(1)) / (2 * step), 1e-6)

    def strain(sign):
        factor = np.diag([1.0, 1.0, 1.0 + sign * step])
        return energy(lambda moved: moved.set_cell(moved.cell @ factor, scale_atoms=True))

    found = (strain(1) - strain(-1)) / (2 * step) / atoms.get_volume()
    assert_close(stress[2, 2], found, 1e-5)


def test_bad_input_is_refused_and_the_calculator_stays_usable():
    atoms = pair()
    atoms.calc = calculator = CoulombCalculator(CHARGES)
    with pytest.raises(ValueError, match=r"found neither any by set_multipoles nor atoms\.arrays"):
        atoms.get_potential_energy()
    with pytest.raises(ValueError, match=r"found shape \(2, 4\), expected \(atoms, 1\)"):
        calculator.set_multipoles(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"external field: found .*, expected three finite"):
        calculator.set_external_field([0.0, np.nan, 0.0])
    calculator.set_multipoles(np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"found shape \(3, 1\), expected \(2, 1\)"):
        atoms.get_potential_energy()
    calculator.set_multipoles(np.ones((2, 1)))
    energy = atoms.get_potential_energy()
    wire = atoms.copy()
    wire.cell, wire.pbc = np.eye(3) * 9.0, (False, False, True)
    wire.calc = calculator
    with pytest.raises(BoundaryError, match="found pbc FFT"):
        wire.get_potential_energy()
    assert atoms.get_potential_energy() == energy
