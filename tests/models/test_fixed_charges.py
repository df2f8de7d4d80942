"""Fixed charges: what the density is, and what is left to the network."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    assert_close,
    batch_of,
    molecule,
    periodic,
    random_parameters,
    structure,
    tiny_settings,
)

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import batch_coulomb_energy
from mace_scf_jax.models import FormalChargeSettings, build, check_inputs

SETTINGS = tiny_settings("FixedChargeBaselinedMACE")


@pytest.fixture(scope="module")
def graph():
    return batch_of([structure(atoms, SETTINGS) for atoms in (molecule(), periodic())])


def test_the_density_is_that_of_the_formal_charges(graph):
    module = build(SETTINGS)
    compiled = jax.jit(lambda params: module.apply({"params": params}, graph))
    coulomb_energy = jax.jit(
        functools.partial(batch_coulomb_energy, settings=SETTINGS.electrostatics)
    )
    formal = np.where(graph.atom_mask, np.array([0.9, -1.9])[np.asarray(graph.species)], 0.0)
    for seed in (0, 1):
        params = random_parameters(module, graph, seed=seed)
        outputs = compiled(params)
        np.testing.assert_array_equal(outputs["multipoles"], formal[:, None])
        dipole = (formal[:, None] * np.asarray(graph.positions))[:5].sum(axis=0)
        assert_close(outputs["dipole"][0], dipole, 1e-14)
        coulomb = coulomb_energy(graph, jnp.asarray(formal[:, None]))
        in_field = jnp.sum(outputs["dipole"] * graph.external_field, axis=-1)
        learned = jnp.sum(outputs["contributions"], axis=-1)
        assert_close(outputs["energy"], learned + coulomb + in_field, 1e-14)


def test_nothing_but_the_backbone_has_parameters(graph):
    assert list(random_parameters(build(SETTINGS), graph)) == ["backbone"]


def test_dipoles_are_refused():
    electrostatics = dataclasses.replace(SETTINGS.electrostatics, max_l=1)
    with pytest.raises(ValueError, match=r"expected charges only \(max_l 0\), found max_l 1"):
        build(dataclasses.replace(SETTINGS, electrostatics=electrostatics))


def test_structures_without_formal_charges_are_refused():
    settings = dataclasses.replace(SETTINGS, own=FormalChargeSettings())
    with pytest.raises(DataError, match="FixedChargeBaselinedMACE reads 'charges'"):
        check_inputs(settings, from_atoms(molecule()))
