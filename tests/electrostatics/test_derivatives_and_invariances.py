"""Derivatives of every output, and what must leave the outputs unchanged."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
    batch_coulomb_energy,
    batch_field_features,
    prepare_batch,
)
from mace_scf_jax.electrostatics.gaussians import receiver_scale
from mace_scf_jax.electrostatics.harmonics import solid_harmonics

from .systems import Sizes, System, batch, random_system
from .tolerances import FIRST_DERIVATIVE, IDENTITY, SECOND_DERIVATIVE, assert_close

# One batch holds a periodic system, a slab and a molecule, so it covers every periodic mode.
PERIODIC = ElectrostaticsSettings(
    max_l=2,
    smearing_width=1.0,
    kspace_cutoff_factor=0.9,
    boundary="mixed_periodic",
    features=FieldFeatureSettings(max_l=2, widths=(1.0, 1.6), include_self_interaction=True),
)
OPEN = dataclasses.replace(
    PERIODIC,
    boundary="realspace",
    features=dataclasses.replace(PERIODIC.features, widths=(1.0,)),
)
BOTH = pytest.mark.parametrize("settings", [PERIODIC, OPEN], ids=["periodic", "open"])
SIZES = Sizes(atoms=15, graphs=4, slots=6, kvectors=450)


def three_systems(settings: ElectrostaticsSettings) -> list[System]:
    """A periodic system, a neutral slab and a charged molecule; all molecules if open."""
    periodic = random_system(1, 4, max_l=settings.max_l, length=6.0)
    slab = random_system(2, 5, max_l=settings.max_l, length=6.0, pbc=(True, True, False), skew=0.0)
    slab.multipoles[:, 0] -= slab.multipoles[:, 0].mean()
    slab.cell[:] = [[6.0, 0.3, 0.0], [-1.1, 5.5, 0.0], [0.0, 0.0, 8.0]]
    molecule = random_system(3, 3, max_l=settings.max_l, length=7.0, pbc=(False,) * 3)
    return [periodic, slab, molecule]


def batch_of(systems, settings, sizes=SIZES):
    if settings is not OPEN:
        return batch(systems, settings.kspace_cutoff, sizes)
    return batch(systems, None, None if sizes is None else dataclasses.replace(sizes, kvectors=0))


@functools.partial(jax.jit, static_argnames="settings")
def observables(graph, multipoles, *, settings):
    prepared = prepare_batch(graph, settings=settings)
    keywords = {"settings": settings, "prepared": prepared}
    return {
        "energy": batch_coulomb_energy(graph, multipoles, **keywords),
        "features": batch_field_features(graph, multipoles, **keywords),
        "potentials": batch_atomic_potentials(graph, multipoles, **keywords),
    }


def weighted_sum(variables, graph, weights, settings):
    """All outputs in one number, so that its derivatives test those of every output."""
    positions, multipoles, strain = variables
    strained = graph.replace(positions=positions).strained(strain)
    outputs = observables(strained, multipoles, settings=settings)
    return sum(jnp.sum(weights[name] * value) for name, value in outputs.items())


@functools.partial(jax.jit, static_argnames="settings")
def first_derivatives(variables, graph, weights, *, settings):
    return jax.value_and_grad(weighted_sum)(variables, graph, weights, settings)


@functools.partial(jax.jit, static_argnames="settings")
def forward_over_reverse(variables, direction, graph, weights, *, settings):
    return jax.jvp(
        lambda x: jax.grad(weighted_sum)(x, graph, weights, settings), (variables,), (direction,)
    )[1]


@functools.partial(jax.jit, static_argnames="settings")
def reverse_over_reverse(variables, direction, graph, weights, *, settings):
    def directional(x):
        gradient = jax.grad(weighted_sum)(x, graph, weights, settings)
        return sum(jnp.vdot(g, d) for g, d in zip(gradient, direction, strict=True))

    return jax.grad(directional)(variables)


def variables_and_weights(systems, settings, seed=0):
    """Variables, a direction in them that leaves padding alone, the batch, output weights."""
    rng = np.random.default_rng(seed)
    graph, multipoles = batch_of(systems, settings)
    variables = (graph.positions, multipoles, np.zeros_like(graph.cell))
    mask = graph.atom_mask[:, None]
    direction = (
        np.where(mask, rng.normal(size=graph.positions.shape), 0.0),
        np.where(mask, rng.normal(size=multipoles.shape), 0.0),
        0.1 * rng.normal(size=graph.cell.shape),
    )
    weights = {
        "energy": rng.normal(size=graph.num_graphs),
        "features": rng.normal(size=(graph.num_atoms, settings.features.num_features)),
        "potentials": rng.normal(size=graph.num_atoms),
    }
    return variables, direction, graph, weights


def moved(variables, direction, step):
    return tuple(x + step * d for x, d in zip(variables, direction, strict=True))


@BOTH
def test_first_derivatives_equal_finite_differences(settings):
    variables, direction, graph, weights = variables_and_weights(three_systems(settings), settings)
    evaluate = functools.partial(first_derivatives, graph=graph, weights=weights, settings=settings)
    _, gradient = evaluate(variables)
    step = 1e-5
    for index in range(3):
        only = tuple(d if i == index else np.zeros_like(d) for i, d in enumerate(direction))
        plus, _ = evaluate(moved(variables, only, step))
        minus, _ = evaluate(moved(variables, only, -step))
        slope = sum(np.vdot(g, d) for g, d in zip(gradient, only, strict=True))
        np.testing.assert_allclose(slope, (plus - minus) / (2 * step), rtol=FIRST_DERIVATIVE)


@pytest.mark.parametrize(
    ("settings", "second_derivatives"),
    [
        (PERIODIC, forward_over_reverse),
        pytest.param(PERIODIC, reverse_over_reverse, marks=pytest.mark.slow),
        (OPEN, reverse_over_reverse),
    ],
    ids=["periodic-forward", "periodic-reverse", "open-reverse"],
)
def test_second_derivatives_equal_finite_differences(settings, second_derivatives):
    variables, direction, graph, weights = variables_and_weights(three_systems(settings), settings)
    evaluate = functools.partial(first_derivatives, graph=graph, weights=weights, settings=settings)
    second = second_derivatives(variables, direction, graph, weights, settings=settings)
    step = 1e-5
    _, plus = evaluate(moved(variables, direction, step))
    _, minus = evaluate(moved(variables, direction, -step))
    for actual, above, below in zip(second, plus, minus, strict=True):
        assert_close(actual, (above - below) / (2 * step), SECOND_DERIVATIVE)


@BOTH
def test_derivatives_are_finite_at_coincident_atoms_and_for_single_atoms(settings):
    first, second, third = three_systems(settings)
    first.positions[1] = first.positions[0]
    second.positions[:] = 0.0
    single = third.replace(positions=np.zeros((1, 3)), multipoles=third.multipoles[:1])
    variables, direction, graph, weights = variables_and_weights([first, second, single], settings)
    value, gradient = first_derivatives(variables, graph, weights, settings=settings)
    curvature = reverse_over_reverse(variables, direction, graph, weights, settings=settings)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in (*gradient, *curvature))


@BOTH
def test_graphs_are_independent_of_their_batch_and_of_padding(settings):
    systems = three_systems(settings)
    together = observables(*batch_of(systems, settings), settings=settings)
    assert float(together["energy"][3]) == 0.0
    np.testing.assert_array_equal(together["features"][12:], 0.0)
    np.testing.assert_array_equal(together["potentials"][12:], 0.0)
    start = 0
    for index, system in enumerate(systems):
        alone = observables(*batch_of([system], settings), settings=settings)
        count = len(system.positions)
        assert_close(alone["energy"][0], together["energy"][index], IDENTITY)
        for name in ("features", "potentials"):
            expected = together[name][start : start + count]
            assert_close(alone[name][:count], expected, IDENTITY)
        start += count
    unpadded = observables(*batch_of(systems, settings, sizes=None), settings=settings)
    for name, value in unpadded.items():
        assert_close(value, together[name][: len(value)], IDENTITY)


@pytest.mark.parametrize(
    ("mode", "kind", "pbc"),
    [
        ("pbc", 0, (True, True, True)),
        ("slab", 1, (True, True, False)),
        ("molecule_in_box", 2, (False, False, False)),
    ],
)
def test_mixed_periodicity_is_each_mode_on_its_graphs(mode, kind, pbc):
    """So that what is tested for the mixed batch holds for every mode."""
    systems = three_systems(PERIODIC)
    assert systems[kind].pbc == pbc
    expected = observables(*batch_of(systems, PERIODIC), settings=PERIODIC)
    only = dataclasses.replace(PERIODIC, boundary=mode)
    actual = observables(*batch_of(systems, PERIODIC), settings=only)
    counts = [len(system.positions) for system in systems]
    atoms = slice(sum(counts[:kind]), sum(counts[: kind + 1]))
    assert_close(actual["energy"][kind], expected["energy"][kind], IDENTITY)
    for name in ("features", "potentials"):
        assert_close(actual[name][atoms], expected[name][atoms], IDENTITY)


def rotation_matrix(rotation: np.ndarray, max_l: int) -> np.ndarray:
    """How solid harmonics, and so multipoles, transform under a rotation of space."""
    points = np.random.default_rng(5).normal(size=(40, 3))
    harmonics = jax.jit(solid_harmonics, static_argnums=1)
    before = np.asarray(harmonics(points, max_l))
    after = np.asarray(harmonics(points @ rotation.T, max_l))
    matrix = np.zeros((before.shape[1], before.shape[1]))
    for degree in range(max_l + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        matrix[block, block] = np.linalg.lstsq(before[:, block], after[:, block])[0]
    return matrix


def rotate_features(features: np.ndarray, matrix: np.ndarray, num_widths: int) -> np.ndarray:
    rotated, start, degree = np.empty_like(features), 0, 0
    while start < features.shape[1]:
        size = 2 * degree + 1
        block = matrix[degree**2 : (degree + 1) ** 2, degree**2 : (degree + 1) ** 2]
        for _ in range(num_widths):
            rotated[:, start : start + size] = features[:, start : start + size] @ block
            start += size
        degree += 1
    return rotated


@BOTH
def test_outputs_rotate_with_the_system(settings):
    systems = three_systems(settings)
    expected = observables(*batch_of(systems, settings), settings=settings)
    features = np.asarray(expected["features"]).copy()
    turned, start = [], 0
    for index, system in enumerate(systems):
        # A slab may only turn about its open axis.
        vector = [0.0, 0.0, 1.3] if index == 1 else np.array([0.4, -1.2, 0.7]) * (index + 1)
        rotation = scipy.spatial.transform.Rotation.from_rotvec(vector).as_matrix()
        matrix = rotation_matrix(rotation, 3)
        size = settings.num_multipoles
        turned.append(
            system.replace(
                positions=system.positions @ rotation.T,
                multipoles=system.multipoles @ matrix[:size, :size],
                cell=system.cell @ rotation.T,
            )
        )
        atoms = slice(start, start + len(system.positions))
        features[atoms] = rotate_features(features[atoms], matrix, len(settings.features.widths))
        start = atoms.stop
    actual = observables(*batch_of(turned, settings), settings=settings)
    assert_close(actual["energy"], expected["energy"], IDENTITY)
    assert_close(actual["potentials"], expected["potentials"], IDENTITY)
    assert_close(actual["features"], features, IDENTITY)


@BOTH
def test_outputs_do_not_depend_on_origin_order_or_choice_of_cell(settings):
    systems = three_systems(settings)
    expected = observables(*batch_of(systems, settings), settings=settings)
    # Left-handed, and skewed in the plane only, so that it also describes the slab.
    basis = np.array([[1, 0, 0], [2, -1, 0], [0, 0, 1]])
    orders = [np.random.default_rng(6).permutation(len(system.positions)) for system in systems]
    # The potential of a slab is relative to z = 0.
    shifts = np.array([[1.3, -7.0, 2.1], [1.3, -7.0, 0.0], [-5.0, 2.0, 0.4]])
    if settings is not OPEN:
        # Periodic images are equivalent, except for the moments of a molecule.
        systems[0].positions[0] += np.array([1.0, -2.0, 1.0]) @ systems[0].cell
        systems[1].positions[2] += np.array([3.0, 1.0, 0.0]) @ systems[1].cell
    changed = [
        system.replace(
            positions=(system.positions + shift)[order],
            multipoles=system.multipoles[order],
            cell=basis @ system.cell,
        )
        for system, shift, order in zip(systems, shifts, orders, strict=True)
    ]
    actual = observables(*batch_of(changed, settings), settings=settings)
    assert_close(actual["energy"], expected["energy"], IDENTITY)
    start = 0
    for order in orders:
        for name in ("features", "potentials"):
            before = expected[name][start : start + len(order)][order]
            assert_close(actual[name][start : start + len(order)], before, IDENTITY)
        start += len(order)


@pytest.mark.parametrize(
    "settings",
    [
        OPEN,
        dataclasses.replace(
            PERIODIC, max_l=3, features=dataclasses.replace(PERIODIC.features, max_l=3)
        ),
    ],
    ids=["open", "periodic"],
)
def test_features_are_derivatives_of_the_energy(settings):
    """With the width of the density, a feature is dE/dp times its normalisation."""
    graph, multipoles = batch_of(three_systems(settings), settings)

    @jax.jit
    def energy_derivatives(graph, multipoles):
        return jax.grad(lambda p: jnp.sum(batch_coulomb_energy(graph, p, settings=settings)))(
            multipoles
        )

    gradient = energy_derivatives(graph, multipoles)
    features = observables(graph, multipoles, settings=settings)["features"]
    num_widths = len(settings.features.widths)
    for degree in range(settings.max_l + 1):
        start, size = num_widths * degree**2, 2 * degree + 1
        expected = gradient[:, degree**2 : (degree + 1) ** 2] * receiver_scale(degree, 1.0)
        assert_close(features[:, start : start + size], expected, IDENTITY)


def test_float32_stays_float32_and_is_accurate():
    graph, multipoles = batch_of(three_systems(PERIODIC), PERIODIC)
    expected = observables(graph, multipoles, settings=PERIODIC)
    single = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, graph)
    outputs = observables(single, multipoles.astype(np.float32), settings=PERIODIC)
    for name, value in outputs.items():
        assert value.dtype == np.float32
        assert_close(value, expected[name], 2e-6)
