"""Coulomb energies: reference numbers, derivatives, invariances, padding."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import batch_coulomb_energy

from .systems import REFERENCE_NAMES, load_reference
from .tolerances import assert_close, reference_tolerance

# The PyTorch reference takes the box length of a charged molecule as Ω^0.3333.
REFERENCE_CUBE_ROOT = 0.3333


@functools.partial(jax.jit, static_argnames="settings")
def energy_and_gradients(graph, multipoles, *, settings):
    def total(positions, multipoles, strain):
        strained = graph.replace(positions=positions).strained(strain)
        energies = batch_coulomb_energy(strained, multipoles, settings=settings)
        return jnp.sum(energies), energies

    zero = jnp.zeros_like(graph.cell)
    (_, energies), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
        graph.positions, multipoles, zero
    )
    return energies, gradients


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_energy_and_gradients_equal_the_reference(name):
    case = load_reference(name)
    settings = dataclasses.replace(case.settings, molecule_exponent=REFERENCE_CUBE_ROOT)
    energies, gradients = energy_and_gradients(case.graph, case.multipoles, settings=settings)
    tolerance = reference_tolerance(settings.boundary.value)
    assert_close(energies, case.outputs["energy"], tolerance)
    names = ("denergy_dpositions", "denergy_dmultipoles", "denergy_dstrain")
    for output, actual in zip(names, gradients, strict=True):
        if output in case.outputs:
            assert_close(actual, case.outputs[output], tolerance)


@pytest.mark.parametrize("name", [name for name in REFERENCE_NAMES if "realspace" not in name])
def test_number_of_wavevectors_equals_the_reference(name):
    case = load_reference(name)
    # The reference counts k = 0 too.
    np.testing.assert_array_equal(case.graph.k_mask.sum(1) + 1, case.outputs["num_k_half_space"])
