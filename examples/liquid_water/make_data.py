"""Make train.xyz: liquid water with energies and forces of a simple force field.

    python make_data.py

The force field is the flexible water of Wu, Tepper and Voth (SPC/Fw, J. Chem. Phys. 124, 024503,
2006), with Gaussian charges in place of point charges. It stands for a calculation from first
principles: nobody needs an electronic-structure program for the tutorial, and the right answers are
known, the charges of the atoms among them.
"""

from __future__ import annotations

from pathlib import Path

import ase.build
import ase.io
import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.electrostatics import ElectrostaticsSettings, prepare, system_energy
from mace_scf_jax.units import COULOMB_CONSTANT

KCAL = units.kcal / units.mol
CHARGES = np.array([-0.82, 0.41, 0.41])
"""Of O, H, H in e."""
WIDTH = 0.5
"""Of the Gaussians, in Å."""
BOND, STIFFNESS = 1.012, 1059.162 * KCAL
ANGLE, BENDING = np.radians(113.24), 75.90 * KCAL
EPSILON, SIGMA = 0.1554253 * KCAL, 3.165492
TEMPERATURES = (800.0, 450.0, 300.0)
"""In K; hot structures show what short contacts cost."""
SETTINGS = ElectrostaticsSettings(
    max_l=0, smearing_width=WIDTH, boundary="pbc", include_self_interaction=False
)


class FlexibleWater(Calculator):
    """Energies and forces of water molecules, given as O, H, H, O, H, H, … in a periodic cell.

    Args:
        atoms: the molecules; none of them may be cut by the cell. The cell has to stay as it is.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, atoms: ase.Atoms) -> None:
        super().__init__()
        self.charges = np.tile(CHARGES, len(atoms) // 3)
        energy = water_energy(atoms.cell.array, self.charges)
        self.function = jax.jit(jax.value_and_grad(energy))

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Compute energy and forces."""
        super().calculate(atoms, properties, system_changes)
        energy, gradient = self.function(jnp.asarray(self.atoms.positions))
        self.results = {"energy": float(energy), "forces": -np.asarray(gradient)}


def water_energy(cell: np.ndarray, charges: np.ndarray):
    """The energy in eV as a function of positions in Å."""
    indices = jnp.asarray(half_space_indices(cell, SETTINGS.kspace_cutoff))
    sides, atoms = jnp.asarray(np.diag(cell)), jnp.ones(len(charges), bool)
    others = ~np.eye(len(charges) // 3, dtype=bool)

    def energy(positions):
        system = prepare(
            positions,
            atoms,
            jnp.asarray(cell),
            jnp.ones(3, bool),
            indices,
            jnp.ones(len(indices), bool),
            settings=SETTINGS,
        )
        coulomb = system_energy(system, jnp.asarray(charges)[:, None])
        molecules = positions.reshape(-1, 3, 3)
        pairs = molecules[:, [0, 0, 1]] - molecules[:, [1, 2, 2]]
        lengths = jnp.linalg.norm(pairs, axis=-1)  # O-H, O-H, H-H
        products = CHARGES[[0, 0, 1]] * CHARGES[[1, 2, 2]]
        excluded = COULOMB_CONSTANT * products * jax.lax.erf(0.5 * lengths / WIDTH) / lengths
        cosine = jnp.sum(pairs[:, 0] * pairs[:, 1], -1) / (lengths[:, 0] * lengths[:, 1])
        bonds = 0.5 * STIFFNESS * (lengths[:, :2] - BOND) ** 2
        angles = 0.5 * BENDING * (jnp.arccos(cosine) - ANGLE) ** 2
        oxygen = positions[::3]
        apart = oxygen[:, None] - oxygen
        apart -= sides * jnp.round(apart / sides)
        squared = jnp.where(others, jnp.sum(apart**2, -1), 1e6)
        sixth = (SIGMA**2 / squared) ** 3
        beyond = jnp.clip(10.0 * jnp.sqrt(squared) / jnp.min(sides) - 4.0, 0.0, 1.0)
        fade = 1.0 - beyond**3 * (10.0 - 15.0 * beyond + 6.0 * beyond**2)  # 0 at half the cell
        dispersion = 2.0 * EPSILON * (sixth**2 - sixth) * fade
        return coulomb - jnp.sum(excluded) + jnp.sum(bonds) + jnp.sum(angles) + jnp.sum(dispersion)

    return energy


def box_of_water(molecules_along: int, rng: np.random.Generator) -> ase.Atoms:
    """Molecules of any orientation on a cubic lattice, at the density of water."""
    side = 3.105  # Å, of the cube that one molecule has
    box = ase.Atoms(cell=3 * [molecules_along * side], pbc=True)
    for place in np.ndindex(*3 * [molecules_along]):
        water = ase.build.molecule("H2O")
        water.euler_rotate(*rng.uniform(0.0, 360.0, 3), center="COM")
        water.translate(side * (np.array(place) + 0.5))
        box += water
    return box


def sample(atoms: ase.Atoms, temperature: float, number: int, rng: np.random.Generator):
    """Labelled structures, a quarter of a picosecond apart."""
    dynamics = Langevin(
        atoms,
        0.5 * units.fs,
        temperature_K=temperature,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(4000)  # forget the start
    for _ in range(number):
        dynamics.run(500)
        frame = ase.Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
        frame.info["REF_energy"] = atoms.get_potential_energy()
        frame.arrays["REF_forces"] = atoms.get_forces().round(6)
        yield frame


def main() -> None:
    """Write the structures beside this file."""
    rng = np.random.default_rng(1)
    atoms = box_of_water(3, rng)
    atoms.calc = FlexibleWater(atoms)
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=500)
    frames = [frame for kelvin in TEMPERATURES for frame in sample(atoms, kelvin, 20, rng)]
    rng.shuffle(frames)
    folder = Path(__file__).parent
    ase.io.write(folder / "train.xyz", frames, format="extxyz")
    start = ase.Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    ase.io.write(folder / "start.xyz", start, format="extxyz")


if __name__ == "__main__":
    main()
