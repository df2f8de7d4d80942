"""Polarizabilities, Born effective charges and infrared intensities."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    CHARGED_FAMILIES,
    RESPONDING_FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    VARIATIONAL_FAMILIES,
    assert_close,
    batch_of,
    molecule,
    periodic,
    random_parameters,
    structure,
    tiny_model,
    tiny_settings,
)

from mace_scf_jax.models import (
    DipoleResponse,
    NoDipoleError,
    SelfConsistency,
    build,
    dipole_response,
    infrared_intensities,
)
from mace_scf_jax.models.families.fixed_point.self_consistency import solved_outputs
from mace_scf_jax.predict.response import PolarizabilityWarning
from mace_scf_jax.simulate import Model, polarization_change, predict_response

STEP = 1e-4
FAMILIES = [
    name if name == "LocalSplitCharges" else pytest.param(name, marks=pytest.mark.slow)
    for name in CHARGED_FAMILIES
]


@functools.cache
def solved(family):
    """Batch of an open and a periodic structure, its outputs as a function, its response."""
    settings = tiny_settings(family)
    module = build(settings)
    structures = [structure(atoms, settings) for atoms in (molecule(), periodic())]
    graph = batch_of(structures)
    params = random_parameters(module, graph)
    if family in SELF_CONSISTENT_FAMILIES:
        how = SelfConsistency()
        predict = jax.jit(lambda graph: solved_outputs(module, params, graph, how=how))
    else:
        predict = jax.jit(lambda graph: module.apply({"params": params}, graph))
    response = jax.jit(functools.partial(dipole_response, module))(params, graph)
    return graph, predict, response


def slope(predict, moved):
    """Central difference of the dipoles along ``moved(size)``."""
    upper, lower = (np.asarray(predict(moved(size))["dipole"]) for size in (STEP, -STEP))
    return (upper - lower) / (2.0 * STEP)


@pytest.mark.parametrize("family", FAMILIES)
def test_born_charges_are_derivatives_of_the_dipole(family):
    graph, predict, response = solved(family)
    assert_close(response.dipole[0], predict(graph)["dipole"][0], 1e-13)
    direction = np.random.default_rng(0).normal(size=graph.positions.shape)
    expected = slope(predict, lambda s: graph.replace(positions=graph.positions + s * direction))
    actual = graph.sum_atoms(jnp.einsum("iab,ib->ia", response.born_charges, direction))
    defined = 2 if build(tiny_settings(family)).settings.own.has_polarization else 1
    assert_close(actual[:defined], expected[:defined], 1e-6)
    assert np.isnan(response.dipole[1]).all() == (defined == 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_polarizability_is_the_derivative_by_the_field(family):
    graph, predict, response = solved(family)
    if family not in RESPONDING_FAMILIES:
        read_out = predict(graph).get("polarizability")
        assert (response.polarizability is None) == (read_out is None)
        if read_out is not None:
            assert_close(response.polarizability[:2], read_out[:2], 1e-12)
        return
    direction = np.array([0.3, -0.8, 0.5])
    expected = -slope(
        predict, lambda s: graph.replace(external_field=graph.external_field + s * direction)
    )
    assert_close((response.polarizability @ direction)[0], expected[0], 1e-6)
    assert np.isnan(response.polarizability[1]).all()
    if family not in VARIATIONAL_FAMILIES:  # no energy is minimal, so nothing makes it symmetric
        return
    polarizability = np.asarray(response.polarizability[0])
    assert_close(polarizability, polarizability.T, 1e-9)
    assert np.linalg.eigvalsh(polarizability)[0] > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_moving_all_atoms_moves_the_total_charge(family):
    graph, predict, response = solved(family)
    charge = np.asarray(predict(graph)["total_charge"])
    total = np.asarray(graph.sum_atoms(response.born_charges))
    assert_close(total[0], charge[0] * np.eye(3), 1e-11)
    if tiny_settings(family).own.has_polarization:
        assert_close(total[1], charge[1] * np.eye(3), 1e-11)


def in_a_box(edge: float, pbc: bool = True):
    """A molecule without field, in a cube that is periodic or has no meaning."""
    atoms = molecule(box=edge)
    atoms.pbc, atoms.info = pbc, {"total_charge": 1.0}
    return atoms


def test_born_charges_of_periodic_structures_do_not_depend_on_the_image():
    model, atoms = tiny_model(num_interactions=2), periodic()
    elsewhere = atoms.copy()
    elsewhere.positions[1] += atoms.cell[0] - 2 * atoms.cell[2]
    elsewhere.positions += [3.0, -50.0, 0.7]
    one, other = predict_response(model, [atoms, elsewhere])
    assert_close(other.born_charges, one.born_charges, 1e-10)
    assert np.max(np.abs(one.born_charges)) > 0.1


@pytest.mark.slow
def test_born_charges_in_a_large_cell_are_those_of_the_molecule():
    # the charges of this family do not see the images, so all difference is that of the sines, if
    # what an atom gains comes from others
    model = tiny_model(num_interactions=2).with_surplus("uniform")
    boxes = [in_a_box(30.0, pbc=False), in_a_box(30.0), in_a_box(60.0)]
    alone, small, large = (entry.born_charges for entry in predict_response(model, boxes))
    errors = [np.max(np.abs(found - alone)) / np.max(np.abs(alone)) for found in (small, large)]
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 12  # of fourth order


@pytest.mark.slow
def test_changes_of_the_polarization_do_not_depend_on_wrapping():
    start, step = periodic(), np.random.default_rng(0).normal(scale=0.05, size=(5, 3))
    end = start.copy()
    end.positions += step
    wrapped = end.copy()
    wrapped.positions[2] -= start.cell[1]
    split, local = tiny_model("LocalSplitCharges"), tiny_model()
    one, other = split.predict([end, start], forces=False)
    expected = one["dipole"] - other["dipole"]
    assert_close(polarization_change(split, end, start), expected, 1e-6)
    change = polarization_change(local, end, start)
    assert_close(polarization_change(local, wrapped, start), change, 1e-10)
    opened, moved = in_a_box(30.0, pbc=False), in_a_box(30.0, pbc=False)
    moved.positions += step
    one, other = local.predict([moved, opened], forces=False)
    expected = one["dipole"] - other["dipole"]
    assert_close(polarization_change(local, moved, opened), expected, 1e-6)
    with pytest.raises(ValueError, match="expected the atoms, the cell and the periodic"):
        polarization_change(local, end, molecule())


def test_born_charges_of_a_neutral_crystal_add_up_to_zero_whatever_its_images():
    settings = tiny_settings("LocalSplitCharges")
    own = dataclasses.replace(settings.own, formal_charges=(0.9, -1.8))
    settings = dataclasses.replace(settings, own=own)
    module = build(settings)
    atoms = periodic()[[0, 1, 2]]
    elsewhere = atoms.copy()
    elsewhere.positions[1] += atoms.cell[0] - atoms.cell[2]
    structures = [structure(entry, settings) for entry in (atoms, elsewhere)]
    graph = batch_of(structures)
    params = random_parameters(module, graph)
    response = jax.jit(functools.partial(dipole_response, module))(params, graph)
    born = np.asarray(response.born_charges)
    assert np.max(np.abs(born[:3])) > 0.1
    np.testing.assert_allclose(born[:3].sum(axis=0), 0.0, atol=1e-12)
    assert_close(born[3:6], born[:3], 1e-11)
    quantum = 0.9 * (atoms.cell[0] - atoms.cell[2])
    assert_close(response.dipole[1] - response.dipole[0], quantum, 1e-11)


def test_models_without_charges_have_no_response():
    settings = tiny_settings("MACE")
    module = build(settings)
    graph = batch_of([structure(molecule(), settings)])
    with pytest.raises(NoDipoleError, match="expected a model with charges, found MACE"):
        jax.eval_shape(
            functools.partial(dipole_response, module), random_parameters(module, graph), graph
        )


def test_response_of_structures():
    graph, _, response = solved("LocalSplitCharges")
    settings = tiny_settings("LocalSplitCharges")
    model = Model(settings, random_parameters(build(settings), graph))
    predicted = predict_response(model, [molecule(), periodic()])
    for index, entry in enumerate(predicted):
        own = slice(5 * index, 5 * index + 5)
        assert_close(entry.born_charges, response.born_charges[own], 1e-11)
        assert_close(entry.dipole, response.dipole[index], 1e-11)
        assert_close(entry.polarizability, response.polarizability[index], 1e-11)
    single = predict_response(model, molecule())
    assert_close(single.born_charges, predicted[0].born_charges, 1e-11)


def test_a_negative_polarizability_is_warned_of(monkeypatch):
    """That of a model which answers a field the wrong way round."""

    def wrong(module, params, graph, **how):
        tensors = jnp.tile(jnp.diag(jnp.array([0.5, -0.16, 0.4])), (graph.num_graphs, 1, 1))
        zeros = jnp.zeros((graph.num_atoms, 3, 3))
        return DipoleResponse(jnp.zeros((graph.num_graphs, 3)), tensors, zeros)

    monkeypatch.setattr("mace_scf_jax.predict.response.dipole_response", wrong)
    settings = tiny_settings("LocalSplitCharges")
    with pytest.warns(PolarizabilityWarning, match="structure 0: found .* eigenvalue -0.16"):
        predict_response(Model(settings, {"any": jnp.zeros(1)}), molecule())


def test_intensity_of_two_opposite_charges_on_a_spring():
    # dD/dQ = q/√μ along the bond: 974.88 km/mol for 1 e and 1 u
    charges, masses = np.array([0.5, -0.5]), np.array([1.0, 3.0])
    born = charges[:, None, None] * np.eye(3)
    reduced = masses.prod() / masses.sum()
    stretch = np.zeros((2, 3))
    stretch[:, 0] = np.array([1.0, -1.0]) * reduced / masses / np.sqrt(reduced)
    translation = np.zeros((2, 3))
    translation[:, 1] = 1.0 / np.sqrt(masses.sum())
    modes = np.stack([stretch, translation])
    np.testing.assert_allclose(np.einsum("mia,i,nia->mn", modes, masses, modes), np.eye(2))
    intensities = infrared_intensities(jnp.asarray(born), jnp.asarray(modes))
    np.testing.assert_allclose(intensities, [974.88 * 0.25 / reduced, 0.0], rtol=1e-6, atol=1e-12)
