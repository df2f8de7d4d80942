"""A model in your own JAX program: a pure energy, its derivatives, and many structures at once.

python in_your_program.py MODEL START.xyz
"""

import sys

import ase.io
import jax
import jax.numpy as jnp

import mace_scf_jax

model, start = sys.argv[1:]
atoms = ase.io.read(start)
energy_fn, prepare = mace_scf_jax.energy_function(model)
neighbours = prepare(atoms)  # on the host: edges, reciprocal vectors, inputs of the model
positions = jnp.asarray(atoms.positions)

# Everything at once ...
results = energy_fn.results(positions, neighbours)
print(f"energy {results.energy:.6f} eV, dipole {results.dipole} e Å, valid {results.valid}")

# ... or the energy alone, to be differentiated by whatever you like: here the external field.
polarisation = jax.jit(
    jax.grad(lambda field: energy_fn(positions, neighbours, external_field=field))
)
print(f"dE/dfield {polarisation(jnp.zeros(3))} e Å")

# Many geometries with one neighbour list, which serves while atoms move less than half the skin.
rng = jax.random.key(0)
moved = positions + 0.02 * jax.random.normal(rng, (8, *positions.shape))
energies = jax.jit(jax.vmap(energy_fn, in_axes=(0, None)))(moved, neighbours)
print(f"energies of eight geometries {energies}")


@jax.jit
def descend(positions, neighbours):
    """Steepest descent in one compiled loop; `update` renews the neighbours on the device."""

    def step(carry, _):
        positions, neighbours = carry
        neighbours = neighbours.update(positions)
        results = energy_fn.results(positions, neighbours)
        return (positions + 0.01 * results.forces, neighbours), results.energy

    return jax.lax.scan(step, (positions, neighbours), length=20)


(positions, neighbours), energies = descend(positions, neighbours)
print(f"energy went from {energies[0]:.6f} to {energies[-1]:.6f} eV")
assert not neighbours.overflow, "prepare(atoms, previous=neighbours) makes more room"
