"""A model in JAX-MD: a trajectory within one `lax.scan`.

    python with_jax_md.py MODEL START.xyz

Needs `pip install jax-md`.
"""

import sys

import ase.io
import jax
from ase import units
from jax_md import quantity, simulate, space

from mace_scf_jax.simulate.jax_md_hooks import jax_md_functions

model, start = sys.argv[1:]
atoms = ase.io.read(start)
neighbor_fn, energy_fn = jax_md_functions(model, atoms)
_, shift = space.free()  # positions are not wrapped; periodicity is in the energy
init, step = simulate.nvt_langevin(
    energy_fn, shift, dt=0.5 * units.fs, kT=300.0 * units.kB, gamma=0.001 / units.fs
)
neighbors = neighbor_fn.allocate(atoms.positions)
positions = jax.numpy.asarray(atoms.positions)
masses = jax.numpy.asarray(atoms.get_masses())
state = init(jax.random.key(0), positions, mass=masses, neighbor=neighbors)


@jax.jit
def run(state, neighbors):
    """Ten steps, and the temperature k_B T in eV after each."""

    def body(carry, _):
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        state = step(state, neighbor=neighbors)
        return (state, neighbors), quantity.temperature(momentum=state.momentum, mass=state.mass)

    return jax.lax.scan(body, (state, neighbors), length=10)


for _ in range(2):
    (new_state, neighbors), temperatures = run(state, neighbors)
    if neighbors.did_buffer_overflow:  # repeat these steps with more room
        neighbors = neighbor_fn.allocate(state.position)
        continue
    state = new_state
    print(f"{temperatures[-1] / units.kB:.1f} K, {energy_fn(state.position, neighbors):.6f} eV")
