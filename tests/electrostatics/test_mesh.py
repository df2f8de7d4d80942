"""Mesh sums against direct sums, their derivatives, and what must leave them unchanged."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    Mesh,
    MeshError,
    batch_atomic_potentials,
    batch_coulomb_energy,
    batch_field_features,
    choose_mesh,
    prepare_batch,
    prepare_response,
    system_potential,
)
from mace_scf_jax.electrostatics.mesh_choice import MESH_PAYS_ABOVE

from .systems import Sizes, System, batch, random_system
from .tolerances import FIRST_DERIVATIVE, IDENTITY, SECOND_DERIVATIVE, assert_close

SIZES = Sizes(atoms=15, graphs=4, slots=6, kvectors=0)
MESH = Mesh((15, 16, 18), order=8)
SETTINGS = ElectrostaticsSettings(
    max_l=1,
    smearing_width=1.0,
    boundary="mixed_periodic",
    features=FieldFeatureSettings(max_l=1, widths=(1.0, 1.6)),
    sums="mesh",
)
POINTS = np.array([[0.3, -4.0, 11.0], [2.0, 2.5, 3.0]])


def three_systems(max_l: int) -> list[System]:
    """A periodic system in a skewed left-handed cell, a neutral slab and a charged molecule."""
    periodic = random_system(1, 4, max_l=max_l, length=6.0)
    periodic.cell[:] = [[5.5, 0.0, 0.0], [2.0, 6.0, 0.5], [-1.0, 2.2, -6.5]]
    slab = random_system(2, 5, max_l=max_l, length=6.0, pbc=(True, True, False), skew=0.0)
    slab.multipoles[:, 0] -= slab.multipoles[:, 0].mean()
    slab.cell[:] = [[6.0, 0.3, 0.0], [-1.1, 5.5, 0.0], [0.0, 0.0, 8.0]]
    molecule = random_system(3, 3, max_l=max_l, length=7.0, pbc=(False,) * 3)
    return [periodic, slab, molecule]


def outputs(graph, multipoles, *, settings):
    prepared = prepare_batch(graph, settings=settings)
    keywords = {"settings": settings, "prepared": prepared}
    return {
        "energy": batch_coulomb_energy(graph, multipoles, **keywords),
        "features": batch_field_features(graph, multipoles, **keywords),
        "potentials": batch_atomic_potentials(graph, multipoles, **keywords),
    }


observables = jax.jit(outputs, static_argnames="settings")


@functools.partial(jax.jit, static_argnames="settings")
def everything(graph, multipoles, *, settings):
    """Outputs of all kinds and the derivatives of the energy."""

    def energy(positions, strain):
        strained = graph.replace(positions=positions).strained(strain)
        found = outputs(strained, multipoles, settings=settings)
        return jnp.sum(found["energy"]), found

    derivatives, found = jax.grad(energy, argnums=(0, 1), has_aux=True)(
        graph.positions, jnp.zeros_like(graph.cell)
    )
    prepared = prepare_batch(graph, settings=settings)
    at_points = jax.vmap(system_potential, in_axes=(0, 0, None))(
        prepared, graph.to_slots(multipoles), jnp.asarray(POINTS)
    )
    forces, virials = derivatives
    return {**found, "forces": forces, "virials": virials, "at points": at_points}


ACCURACIES = [
    pytest.param(0, 1e-7, marks=pytest.mark.slow),
    (1, 1e-5),
    pytest.param(1, 1e-10, marks=pytest.mark.slow),
    pytest.param(3, 1e-6, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("max_l", "accuracy"), ACCURACIES)
def test_the_mesh_agrees_with_the_direct_sum_within_the_accuracy_asked_for(max_l, accuracy):
    """The direct sum goes so far in k that it is exact in comparison."""
    direct = dataclasses.replace(
        SETTINGS,
        max_l=max_l,
        features=FieldFeatureSettings(max_l=max_l, widths=(1.0, 1.6)),
        sums="direct",
        kspace_cutoff_factor=7.5 / 2.25 / (max_l + 1) ** 0.3,
    )
    systems = three_systems(max_l)
    wanted = dataclasses.replace(direct, sums="mesh", mesh_accuracy=accuracy)
    mesh = choose_mesh(wanted, np.stack([system.cell for system in systems]), num_atoms=5)
    expected = everything(*batch(systems, direct.kspace_cutoff), settings=direct)
    actual = everything(*batch(systems, None, mesh=mesh), settings=wanted)
    for name, value in expected.items():
        assert_close(actual[name], value, accuracy)


def weighted_sum(variables, graph, weights, settings):
    """All outputs in one number, so that its derivatives test those of every output."""
    positions, multipoles, strain = variables
    strained = graph.replace(positions=positions).strained(strain)
    found = outputs(strained, multipoles, settings=settings)
    return sum(jnp.sum(weights[name] * value) for name, value in found.items())


@functools.partial(jax.jit, static_argnames="settings")
def gradient(variables, graph, weights, *, settings=SETTINGS):
    return jax.value_and_grad(weighted_sum)(variables, graph, weights, settings)


@functools.partial(jax.jit, static_argnames="settings")
def forward_over_reverse(variables, direction, graph, weights, *, settings=SETTINGS):
    return jax.jvp(
        lambda x: jax.grad(weighted_sum)(x, graph, weights, settings), (variables,), (direction,)
    )[1]


@functools.partial(jax.jit, static_argnames="settings")
def reverse_over_reverse(variables, direction, graph, weights, *, settings=SETTINGS):
    def directional(x):
        slopes = jax.grad(weighted_sum)(x, graph, weights, settings)
        return sum(jnp.vdot(g, d) for g, d in zip(slopes, direction, strict=True))

    return jax.grad(directional)(variables)


def variables_and_weights(systems):
    """Variables, a direction in them that leaves padding alone, the batch, output weights."""
    rng = np.random.default_rng(0)
    graph, multipoles = batch(systems, None, SIZES, MESH)
    variables = (graph.positions, multipoles, np.zeros_like(graph.cell))
    mask = graph.atom_mask[:, None]
    direction = (
        np.where(mask, rng.normal(size=graph.positions.shape), 0.0),
        np.where(mask, rng.normal(size=multipoles.shape), 0.0),
        0.1 * rng.normal(size=graph.cell.shape),
    )
    weights = {
        "energy": rng.normal(size=graph.num_graphs),
        "features": rng.normal(size=(graph.num_atoms, SETTINGS.features.num_features)),
        "potentials": rng.normal(size=graph.num_atoms),
    }
    return variables, direction, graph, weights


def moved(variables, direction, step):
    return tuple(x + step * d for x, d in zip(variables, direction, strict=True))


def test_first_derivatives_equal_finite_differences():
    variables, direction, graph, weights = variables_and_weights(three_systems(SETTINGS.max_l))
    _, slopes = gradient(variables, graph, weights)
    step = 1e-5
    for index in range(3):
        only = tuple(d if i == index else np.zeros_like(d) for i, d in enumerate(direction))
        plus, _ = gradient(moved(variables, only, step), graph, weights)
        minus, _ = gradient(moved(variables, only, -step), graph, weights)
        slope = sum(np.vdot(g, d) for g, d in zip(slopes, only, strict=True))
        np.testing.assert_allclose(slope, (plus - minus) / (2 * step), rtol=FIRST_DERIVATIVE)


@pytest.mark.parametrize(
    "second_derivatives",
    [forward_over_reverse, pytest.param(reverse_over_reverse, marks=pytest.mark.slow)],
)
def test_second_derivatives_equal_finite_differences(second_derivatives):
    variables, direction, graph, weights = variables_and_weights(three_systems(SETTINGS.max_l))
    second = second_derivatives(variables, direction, graph, weights)
    step = 1e-5
    _, plus = gradient(moved(variables, direction, step), graph, weights)
    _, minus = gradient(moved(variables, direction, -step), graph, weights)
    for actual, above, below in zip(second, plus, minus, strict=True):
        assert_close(actual, (above - below) / (2 * step), SECOND_DERIVATIVE)


def test_derivatives_are_finite_at_coincident_atoms_and_for_single_atoms():
    first, second, third = three_systems(SETTINGS.max_l)
    first.positions[1] = first.positions[0]
    second.positions[:] = 0.0
    single = third.replace(positions=np.zeros((1, 3)), multipoles=third.multipoles[:1])
    variables, direction, graph, weights = variables_and_weights([first, second, single])
    value, slopes = gradient(variables, graph, weights)
    curvature = forward_over_reverse(variables, direction, graph, weights)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in (*slopes, *curvature))


def test_graphs_are_independent_of_their_batch_and_of_padding():
    systems = three_systems(SETTINGS.max_l)
    together = observables(*batch(systems, None, SIZES, MESH), settings=SETTINGS)
    assert float(together["energy"][3]) == 0.0
    np.testing.assert_array_equal(together["features"][12:], 0.0)
    np.testing.assert_array_equal(together["potentials"][12:], 0.0)
    start = 0
    for index, system in enumerate(systems):
        alone = observables(*batch([system], None, SIZES, MESH), settings=SETTINGS)
        count = len(system.positions)
        assert_close(alone["energy"][0], together["energy"][index], IDENTITY)
        for name in ("features", "potentials"):
            assert_close(alone[name][:count], together[name][start : start + count], IDENTITY)
        start += count


def test_translations_change_outputs_within_accuracy_and_lattice_vectors_not_at_all():
    accuracy = 1e-6
    system = three_systems(SETTINGS.max_l)[0]
    # Neutral, so that the dipole of a translated cell content stays what it is.
    system.multipoles[:, 0] -= system.multipoles[:, 0].mean()
    settings = dataclasses.replace(SETTINGS, mesh_accuracy=accuracy, boundary="pbc")
    mesh = choose_mesh(settings, system.cell, num_atoms=4)
    expected = observables(*batch([system], None, SIZES, mesh), settings=settings)
    shifted = system.replace(positions=system.positions + np.array([0.123, -0.456, 0.789]))
    for name, value in observables(*batch([shifted], None, SIZES, mesh), settings=settings).items():
        assert_close(value, expected[name], accuracy)
    images = np.array([[1, 0, 0], [0, -2, 0], [3, 1, -1], [0, 0, 0]]) @ system.cell
    wrapped = system.replace(positions=system.positions + images)
    for name, value in observables(*batch([wrapped], None, SIZES, mesh), settings=settings).items():
        assert_close(value, expected[name], IDENTITY)


def test_the_response_has_the_exact_adjoint():
    systems = three_systems(SETTINGS.max_l)
    graph, multipoles = batch(systems, None, SIZES, MESH)
    rng = np.random.default_rng(4)
    cotangent = jnp.asarray(rng.normal(size=(graph.num_atoms, SETTINGS.features.num_features)))

    @jax.jit
    def both(graph, multipoles, cotangent):
        response = prepare_response(graph, settings=SETTINGS)
        return response.apply(multipoles), response.transpose(cotangent)

    features, transposed = both(graph, multipoles, cotangent)
    left = np.vdot(cotangent, features)
    np.testing.assert_allclose(left, np.vdot(transposed, multipoles), rtol=IDENTITY)
    expected = observables(graph, multipoles, settings=SETTINGS)["features"]
    assert_close(features, expected, IDENTITY)


@pytest.mark.parametrize(("sums", "num_atoms"), [("mesh", 3), ("auto", MESH_PAYS_ABOVE + 1)])
def test_a_mesh_has_to_be_chosen_on_the_host(sums, num_atoms):
    """Without it, and without wavevectors, there would be no interaction at all."""
    unresolved = dataclasses.replace(SETTINGS, sums=sums)
    graph, _ = batch([random_system(0, num_atoms)], None)
    with pytest.raises(MeshError, match="`choose_mesh`"):
        jax.eval_shape(functools.partial(prepare_batch, settings=unresolved), graph)
