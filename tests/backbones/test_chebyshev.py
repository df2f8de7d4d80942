"""The Chebyshev descriptor against sums over pairs, and the networks of the elements."""

from __future__ import annotations

import ase
import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule
from tiny_models import assert_close, batch_of, tiny_descriptor_backbone

from mace_scf_jax.backbones import ChebyshevSettings, Descriptor, FeatureStatistics
from mace_scf_jax.backbones.chebyshev.angular import legendre_coefficients
from mace_scf_jax.backbones.chebyshev.functions import descriptors
from mace_scf_jax.backbones.chebyshev.networks import ElementNetworks, uniform_by_fan_in
from mace_scf_jax.backbones.chebyshev.normalisation import Moments, energy_scaling_and_shift
from mace_scf_jax.backbones.chebyshev.sums import NEIGHBOURS_AT_ONCE
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import required_sizes
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.layers.harmonics import real_harmonics


def graph_of(atoms: ase.Atoms, descriptor: Descriptor, layout: str = "flat"):
    elements = tuple(sorted(set(atoms.numbers.tolist())))
    structure = prepare(from_atoms(atoms), elements=elements, cutoff=descriptor.cutoff)
    return batch_of([structure], required_sizes([structure], layout)), elements


def features_of(atoms: ase.Atoms, descriptor: Descriptor, layout: str = "flat") -> np.ndarray:
    graph, elements = graph_of(atoms, descriptor, layout)
    found = jax.jit(lambda graph: descriptors(graph, descriptor, elements))(graph)
    return np.asarray(found)[: len(atoms)]


def features_by_pairs(atoms: ase.Atoms, descriptor: Descriptor) -> np.ndarray:
    """The definition: polynomials by cosines, every pair of neighbours once."""
    graph, elements = graph_of(atoms, descriptor)
    weights = dict(zip(range(len(elements)), descriptor.weights(elements), strict=True))
    vectors = np.asarray(graph.edge_vectors())

    def cutoff(r, radius):
        return np.where(r < radius, 0.5 * (np.cos(np.pi * r / radius) + 1.0), 0.0)

    def polynomials(x, order):
        return np.cos(np.arange(order + 1)[:, None] * np.arccos(np.clip(x, -1.0, 1.0)))

    rows = []
    for atom in range(len(atoms)):
        own = (np.asarray(graph.receivers) == atom) & np.asarray(graph.edge_mask)
        r = np.linalg.norm(vectors[own], axis=1)
        species = np.asarray(graph.species)[np.asarray(graph.senders)[own]]
        s = np.array([weights[index] for index in species])
        first, second = np.triu_indices(len(r), 1)
        cosines = np.sum(vectors[own][first] * vectors[own][second], axis=1)
        cosines = cosines / (r[first] * r[second])
        row = []
        for w in (np.ones_like(s), s) if descriptor.is_weighted else (np.ones_like(s),):
            radial = polynomials(2.0 * r / descriptor.rad_cutoff - 1.0, descriptor.rad_order)
            row.append(radial @ (w * cutoff(r, descriptor.rad_cutoff)))
            g = w * cutoff(r, descriptor.ang_cutoff)
            angular = polynomials(cosines, descriptor.ang_order)
            row.append(angular @ (g[first] * g[second]))
        rows.append(np.concatenate(row))
    return np.array(rows)


def cluster(number: int, seed: int = 0) -> ase.Atoms:
    """Atoms of three elements within reach of each other, none of them too close."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)[:number]
    positions = 1.6 * grid + rng.normal(scale=0.1, size=(number, 3))
    return ase.Atoms(rng.choice([1, 6, 8], size=number), positions=positions)


@pytest.mark.parametrize(
    ("order", "tolerance"), [(0, 1e-13), (3, 1e-13), (6, 1e-13), (10, 1e-12), (20, 1e-11)]
)
def test_angular_functions_are_the_sums_over_pairs(order, tolerance):
    """Coefficients of high orders are large and cancel; hence the tolerance of order 20."""
    atoms = cluster(40)
    descriptor = Descriptor((8, 1, 6), order, 4.0, order, 6.0)
    assert_close(features_of(atoms, descriptor), features_by_pairs(atoms, descriptor), tolerance)


def test_harmonics_are_those_of_e3nn_and_add_up_at_any_degree():
    directions = np.random.default_rng(0).normal(size=(9, 3))
    directions[0] = 0.0, 0.0, 1.0
    directions = jnp.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    found = np.asarray(real_harmonics(directions, 20))
    irreps = e3nn.Irreps.spherical_harmonics(6)
    about_y = e3nn.spherical_harmonics(irreps, directions[:, [1, 2, 0]], normalize=True)
    assert_close(found[:, :49], about_y.array, 1e-13)
    for l in range(21):
        sums = np.sum(found[:, l**2 : (l + 1) ** 2] ** 2, axis=1)
        assert_close(sums, np.full(9, 2 * l + 1), 1e-13)


def test_polynomials_are_sums_of_legendre_polynomials_of_their_parity():
    coefficients = legendre_coefficients(6)
    x = np.linspace(-1.0, 1.0, 9)
    legendre = np.polynomial.legendre.legvander(x, 6)
    assert_close(legendre @ coefficients.T, np.cos(np.outer(np.arccos(x), np.arange(7))), 1e-14)
    assert np.all(coefficients[2, 1::2] == 0.0)


def test_both_layouts_of_edges_give_the_same():
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.rattle(0.1, seed=1)
    descriptor = Descriptor((11, 17), 4, 5.0, 3, 4.0)
    assert_close(
        features_of(atoms, descriptor, layout="per_atom"), features_of(atoms, descriptor), 1e-13
    )


def test_neighbours_in_pieces_and_in_any_order_give_the_same_and_the_same_derivatives():
    """Of many atoms and neighbours, most of them beyond the angular cutoff."""
    atoms, descriptor = cluster(60), Descriptor((8, 1, 6), 5, 6.5, 3, 2.5)
    graph, elements = graph_of(atoms, descriptor, "per_atom")
    assert graph.neighbours_per_atom > NEIGHBOURS_AT_ONCE
    places = np.arange(len(graph.senders)).reshape(graph.num_atoms, -1)
    places = np.random.default_rng(0).permuted(places, axis=1).reshape(-1)
    edges = ("senders", "cell_shifts", "edge_mask")
    mixed = graph.replace(**{name: getattr(graph, name)[places] for name in edges})

    @jax.jit
    def features_and_slopes(positions, graph):
        def norm(positions):
            features = descriptors(graph.replace(positions=positions), descriptor, elements)
            return jnp.sum(features**2), features

        return jax.grad(norm, has_aux=True)(positions)

    slopes, features = features_and_slopes(graph.positions, graph)
    assert_close(features[: len(atoms)], features_by_pairs(atoms, descriptor), 1e-12)
    others = features_and_slopes(graph.positions, mixed)
    assert_close(others[0], slopes, 1e-12)
    assert_close(others[1], features, 1e-12)
    step = np.zeros_like(graph.positions)
    step[7, 1] = 1e-4
    ahead, behind = (
        jnp.sum(features_and_slopes(graph.positions + way * step, graph)[1] ** 2)
        for way in (1.0, -1.0)
    )
    assert_close(slopes[7, 1], (ahead - behind) / 2e-4, 1e-6)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, [0]), (2, [-1, 1]), (3, [-1, 0, 1]), (4, [-2, -1, 1, 2]), (5, [-2, -1, 0, 1, 2])],
)
def test_weights_of_species_are_integers_around_zero_in_their_order(number, expected):
    species = (8, 3, 42, 28, 22)[:number]
    descriptor = Descriptor(species, 1, 3.0, 1, 3.0)
    np.testing.assert_array_equal(descriptor.weights(species), expected)
    np.testing.assert_array_equal(descriptor.weights(species[::-1]), expected[::-1])


def test_opposite_neighbours_have_derivatives_of_any_order():
    """Every neighbour of an atom of rock salt has another exactly opposite to it."""
    descriptor = Descriptor((11, 17), 3, 4.0, 4, 4.0)
    graph, elements = graph_of(bulk("NaCl", "rocksalt", 5.6), descriptor)
    direction = jnp.asarray(np.random.default_rng(0).normal(size=graph.positions.shape))

    def along(step):
        moved = graph.replace(positions=graph.positions + step * direction)
        return jnp.sum(descriptors(moved, descriptor, elements) ** 2)

    slope = jax.jit(jax.grad(along))
    curvature = jax.jit(jax.grad(jax.grad(along)))
    step = 1e-4
    assert np.isfinite(slope(0.0))
    assert_close(curvature(0.0), (slope(step) - slope(-step)) / (2.0 * step), 1e-6)


def test_atoms_outside_the_cell_count_like_their_images():
    atoms = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    atoms.rattle(0.1, seed=2)
    descriptor = Descriptor((11, 17), 3, 4.0, 3, 4.0)
    moved = atoms.copy()
    moved.positions[[0, 3]] += atoms.cell[0] - 2.0 * atoms.cell[2]
    assert_close(features_of(moved, descriptor), features_of(atoms, descriptor), 1e-12)


def test_neighbours_below_the_shortest_distance_count():
    atoms = ase.Atoms("HO", positions=[[0, 0, 0], [0, 0, 0.3]])
    descriptor = Descriptor((1, 8), 1, 3.0, 0, 3.0, min_cutoff=0.5)
    assert features_of(atoms, descriptor)[0, 0] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": ()}, "species: expected distinct elements"),
        ({"species": (8, 8)}, "species: expected distinct elements, found .*O.*O"),
        ({"rad_order": -1}, "rad_order: expected 0 or more, found -1"),
        ({"ang_cutoff": 0.4}, r"ang_cutoff: expected a length above min_cutoff \(0.55 Å\)"),
        ({"min_cutoff": -1.0}, "not negative"),
    ],
)
def test_descriptors_that_make_no_sense_are_refused(changes, message):
    values = {
        "species": (1, 8),
        "rad_order": 1,
        "rad_cutoff": 3.0,
        "ang_order": 1,
        "ang_cutoff": 3.0,
    }
    with pytest.raises(ValueError, match=message):
        Descriptor(**values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": (8, 1)}, "elements: expected .* ascending order"),
        ({"arch": ((3, "tanh"),)}, "arch: expected one entry for each of 2 elements, found 1"),
        ({"arch": ((), ((3, "tanh"),))}, "arch, H: expected at least one hidden layer"),
        ({"arch": (((0, "tanh"),),) * 2}, "arch, H: expected layers of at least one node, found 0"),
        ({"arch": (((3, "relu"),),) * 2}, "activation of linear, tanh, .* found 'relu'"),
        ({"E_shift": (1.0,)}, "E_shift: expected one entry for each of 2 elements"),
        (
            {"descriptor": Descriptor((8, 6), 1, 3.0, 1, 3.0)},
            "species: expected all elements of the model, found no H in O, C",
        ),
        (
            {"features": FeatureStatistics(((0.0,),), ((1.0,),))},
            "feature statistics: expected 12 features, found 1",
        ),
        (
            {"features": FeatureStatistics(((0.0,) * 12,) * 3, ((1.0,) * 12,) * 3)},
            "expected one row or one for each of 2 elements, found 3",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_descriptor_backbone(**changes)


def test_settings_survive_json():
    settings = tiny_descriptor_backbone()
    values = settings.to_dict()
    assert values.pop("name") == "chebyshev"
    assert ChebyshevSettings(**values) == settings
    assert hash(settings) == hash(tiny_descriptor_backbone())


def test_networks_of_different_elements_are_independent():
    """Each atom has the output of its own network, whatever architecture the others have."""
    architectures = (((3, "tanh"), (2, "linear")), ((4, "mtanh"),), ((3, "tanh"), (2, "linear")))
    module = ElementNetworks((1, 6, 8), architectures, outputs=2)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(7, 5)))
    species = jnp.asarray(rng.integers(0, 3, size=7))
    variables = module.init(jax.random.key(0), features, species)
    found = module.apply(variables, features, species)

    functions = {"tanh": np.tanh, "linear": lambda x: x}
    functions["mtanh"] = lambda x: 1.7159 * np.tanh(2.0 * x / 3.0)
    for atom, kind in enumerate(species):
        network = variables["params"][("H", "C", "O")[kind]]
        value = features[atom]
        for layer, (_, name) in enumerate((*architectures[kind], (2, "linear"))):
            value = functions[name](value @ network[f"weight_{layer}"] + network[f"bias_{layer}"])
        assert_close(found[atom], value, 1e-13)


def test_initial_weights_and_biases_are_uniform_within_the_root_of_the_inputs():
    values = np.asarray(uniform_by_fan_in(16)(jax.random.key(0), (4000,)))
    assert np.all(np.abs(values) <= 0.25)
    assert abs(values.mean()) < 0.01
    assert_close(values.std(), 0.25 / np.sqrt(3.0), 0.03)


def test_statistics_are_those_of_all_atoms_or_of_each_element():
    rng = np.random.default_rng(0)
    features, element = rng.normal(size=(30, 4)), rng.integers(0, 2, size=30)
    features[:, 3] = 2.0
    for rows, row in ((1, np.zeros(30, int)), (2, element)):
        moments = Moments(rows, 4)
        for part in (slice(0, 11), slice(11, 30)):
            moments.add(features[part], row[part])
        statistics = moments.statistics()
        for index in range(rows):
            own = features[row == index]
            assert_close(statistics.mean[index], own.mean(axis=0), 1e-13)
            assert_close(statistics.std[index], np.sqrt(own.var(axis=0) + 1e-12), 1e-7)
            np.testing.assert_array_equal(statistics.minimum[index], own.min(axis=0))
            np.testing.assert_array_equal(statistics.maximum[index], own.max(axis=0))
            assert_close(statistics.std[index][3], 1e-6, 1e-3)


def test_energies_are_scaled_to_between_minus_one_and_one():
    scaling, shift = energy_scaling_and_shift(np.array([-8.0, -7.0, -5.0]))
    np.testing.assert_allclose(scaling * (np.array([-8.0, -5.0]) - shift), [-1.0, 1.0])
    assert energy_scaling_and_shift(np.array([-3.0, -3.0])) == (1.0, 0.0)
    assert energy_scaling_and_shift(np.array([])) == (1.0, 0.0)


def test_features_without_deviation_are_not_used():
    statistics = FeatureStatistics(((1.0, 2.0),), ((0.0, 0.5),))
    centre, scale = statistics.centre_and_scale()
    np.testing.assert_array_equal((np.array([5.0, 3.0]) - centre) * scale, [[0.0, 2.0]])


def test_lone_atoms_have_no_features_and_are_finite():
    descriptor = Descriptor((1, 8), 2, 3.0, 2, 3.0)
    assert np.all(features_of(molecule("H"), Descriptor((1,), 2, 3.0, 2, 3.0)) == 0.0)
    assert np.all(features_of(ase.Atoms("OH", [[0, 0, 0], [0, 0, 9]]), descriptor) == 0.0)
