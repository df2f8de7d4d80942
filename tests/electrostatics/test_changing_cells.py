"""Energy and stress along a change of volume, during which wavevectors cross the cutoff."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import ElectrostaticsSettings, batch_coulomb_energy

from .systems import Sizes, batch, random_system

LENGTH = 6.0
STEP = 1e-10
"""Half the strain between the two sides of a crossing: what is continuous changes by about 1e-8."""
SIZES = Sizes(atoms=4, graphs=1, slots=4, kvectors=220)


@functools.partial(jax.jit, static_argnames="settings")
def energy_and_stress(graph, multipoles, strain, *, settings):
    def energy(strain):
        isotropic = jnp.eye(3)[None] * strain
        return batch_coulomb_energy(graph.strained(isotropic), multipoles, settings=settings)[0]

    return jnp.stack(jax.value_and_grad(energy)(strain))


def crossing(cutoff: float) -> float:
    """An expansion at which wavevectors of the cubic cell cross a cutoff, near 1%."""
    squares = np.arange(1, 200, dtype=float)
    lengths = np.sqrt(squares[[s % 8 != 7 and s % 4 != 0 for s in range(1, 200)]])
    strains = 2 * np.pi / LENGTH * lengths / cutoff - 1.0
    return float(strains[np.argmin(np.abs(strains - 0.01))])


@pytest.mark.parametrize("boundary", ["pbc", "molecule_in_box"])
@pytest.mark.parametrize(
    ("fade", "indices", "continuous"),
    [(0.0, "chosen anew", False), (0.0, "fixed", True), (0.15, "chosen anew", True)],
    ids=["sharp", "fixed", "fading"],
)
def test_energy_and_stress_across_a_crossing(boundary, fade, indices, continuous):
    settings = ElectrostaticsSettings(
        max_l=1,
        smearing_width=1.0,
        boundary=boundary,
        kspace_cutoff_factor=0.8,
        kspace_fade=fade,
    )
    system = random_system(4, 4, length=LENGTH, skew=0.0)
    strain = crossing(settings.kspace_cutoff)
    sides = []
    for side in (strain - STEP, strain + STEP):
        # The range of cells is that of a simulation; the set holds for all of it.
        reach = 0.05 if indices == "fixed" else side
        graph, multipoles = batch([system], settings.kspace_cutoff * (1.0 + reach), SIZES)
        sides.append(energy_and_stress(graph, multipoles, side, settings=settings))
    (energy, stress), jumps = np.abs(sides[0]), np.abs(sides[1] - sides[0])
    if continuous:
        assert np.all(jumps < 1e-7 * np.array([energy, stress]))
    else:
        assert np.all(jumps > 1e-5 * np.array([energy, stress]))
