"""A model in ASE: energies, forces, and a short simulation.

python with_ase.py MODEL START.xyz
"""

import sys

import ase.io
import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mace_scf_jax import runtime
from mace_scf_jax.simulate import MACESCFCalculator

runtime.keep_freed_memory()  # before anything is computed: on CPUs every step is faster

model, start = sys.argv[1:]
atoms = ase.io.read(start)
atoms.calc = MACESCFCalculator(model)

print(f"energy {atoms.get_potential_energy():.6f} eV")
print(f"charges {atoms.get_charges()} e")

spread = np.sqrt(atoms.get_masses() * units.kB * 300.0)  # of momenta at 300 K
atoms.set_momenta(spread[:, None] * np.random.default_rng(1).normal(size=(len(atoms), 3)))
Stationary(atoms)
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
for _ in range(2):
    dynamics.run(5)
    print(f"step {dynamics.nsteps}: {atoms.get_total_energy():.6f} eV")
