"""Single layers: equivariance, and what each of them computes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mace_tensors import contracted, reference_tensors
from rotations import rotated
from tiny_models import assert_close, random_parameters, random_rotation

from mace_scf_jax.backbones.mace.symmetric_contraction import SymmetricContraction
from mace_scf_jax.layers.features import concatenate_components, from_e3nn, to_e3nn
from mace_scf_jax.layers.harmonics import edge_harmonics
from mace_scf_jax.layers.linear import (
    ElementEmbedding,
    ElementLinear,
    EquivariantLinear,
    FullyConnectedTensorProduct,
)
from mace_scf_jax.layers.notation import IrrepsError, parse_multiplicities, parse_uniform_irreps
from mace_scf_jax.layers.readout import LinearReadout, NonlinearReadout, PolarizabilityReadout

ATOMS = 4
SPECIES = np.array([0, 2, 1, 2])


def random_features(multiplicities: dict[int, int], seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {l: rng.normal(size=(ATOMS, 2 * l + 1, n)) for l, n in multiplicities.items()}


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


class OfComponents:
    """A symmetric contraction that takes features degree by degree."""

    def __init__(self, module):
        self.module = module

    def init(self, key, features, species):
        return self.module.init(key, concatenate_components(features), species)

    def apply(self, variables, features, species):
        return self.module.apply(variables, concatenate_components(features), species)


UNIFORM = {0: 2, 1: 2, 2: 2}
LAYERS = {
    "linear": (EquivariantLinear({0: 3, 1: 2, 2: 1, 3: 1}, bias=True), {0: 2, 1: 4, 2: 2}, ()),
    "element linear": (ElementLinear({0: 3, 1: 2, 2: 2}, 3), {0: 2, 1: 4}, (SPECIES,)),
    "linear readout": (LinearReadout({0: 1, 1: 1}), {0: 2, 1: 3}, ()),
    "nonlinear readout": (
        NonlinearReadout({0: 1, 1: 2}, {0: 3, 1: 2}, "silu", 2),
        {0: 2, 1: 3},
        (),
    ),
    "polarizability readout": (PolarizabilityReadout(), UNIFORM, ()),
    "symmetric contraction": (OfComponents(SymmetricContraction(2, 3, 3)), UNIFORM, (SPECIES,)),
}


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_rotating_the_input_rotates_the_output(name, improper):
    module, multiplicities, others = LAYERS[name]
    rotation = random_rotation(3, improper=improper)
    features, others = on_device((random_features(multiplicities), others))
    params = random_parameters(module, features, *others)
    apply = jax.jit(module.apply)
    straight = apply({"params": params}, features, *others)
    turned = apply({"params": params}, on_device(rotated(features, rotation)), *others)
    assert any(np.abs(value).max() > 1e-3 for l, value in straight.items() if l > 0)
    for degree, expected in rotated(straight, rotation).items():
        assert_close(turned[degree], expected, 1e-12, f"degree {degree}")


def test_a_bilinear_map_rotates_with_both_factors():
    module = FullyConnectedTensorProduct({0: 2, 1: 2, 2: 1})
    left, right = random_features({0: 2, 1: 1, 2: 2}), random_features({0: 1, 1: 2}, seed=1)
    rotation = random_rotation(4, improper=True)
    params = random_parameters(module, left, right)
    apply = jax.jit(module.apply)
    straight = apply({"params": params}, on_device(left), on_device(right))
    turned = apply(
        {"params": params}, on_device(rotated(left, rotation)), on_device(rotated(right, rotation))
    )
    for degree, expected in rotated(straight, rotation).items():
        assert_close(turned[degree], expected, 1e-12)
    doubled = apply(
        {"params": params}, on_device(left), on_device({l: 2 * v for l, v in right.items()})
    )
    for degree, expected in straight.items():
        assert_close(doubled[degree], 2 * np.asarray(expected), 1e-13)


def test_linear_divides_by_the_root_of_its_inputs():
    features = random_features({0: 2, 1: 4})
    module = EquivariantLinear({0: 3, 1: 2, 2: 1}, bias=True)
    params = random_parameters(module, features)
    mapped = module.apply({"params": params}, on_device(features))
    assert_close(mapped[0], features[0] @ params["degree_0"] / np.sqrt(2) + params["bias"], 1e-14)
    assert_close(mapped[1], features[1] @ params["degree_1"] / 2, 1e-14)
    assert mapped[2].shape == (ATOMS, 5, 1)
    assert not np.any(mapped[2])  # a degree that the input lacks


def test_element_linear_uses_the_weights_of_each_atoms_element():
    features = random_features({0: 2, 1: 4})
    module = ElementLinear({0: 3, 1: 2}, 3)
    params = random_parameters(module, features, SPECIES)
    mapped = module.apply({"params": params}, *on_device((features, SPECIES)))
    for degree, fan_in in ((0, 2), (1, 4)):
        for atom, element in enumerate(SPECIES):
            weight = params[f"degree_{degree}"][:, element] / np.sqrt(3 * fan_in)
            assert_close(mapped[degree][atom], features[degree][atom] @ weight, 1e-13)


def test_embedding_is_a_row_per_element():
    module = ElementEmbedding(channels=5, num_elements=3)
    params = random_parameters(module, SPECIES)
    embedded = module.apply({"params": params}, jnp.asarray(SPECIES))
    assert_close(embedded[:, 0], params["weight"][SPECIES] / np.sqrt(3), 1e-15)


def test_polarizability_is_even():
    features = random_features(UNIFORM)
    module = PolarizabilityReadout()
    params = random_parameters(module, features)
    params["linear_bypass"] = jax.tree.map(jnp.zeros_like, params["linear_bypass"])
    apply = jax.jit(module.apply)
    plus = apply({"params": params}, on_device(features))
    minus = apply({"params": params}, on_device({l: -v for l, v in features.items()}))
    assert set(plus) == {0, 2}
    for degree in plus:
        assert_close(minus[degree], plus[degree], 1e-14)


def test_symmetric_contraction_equals_the_dense_tensors_of_mace():
    tensors = reference_tensors("product_basis_corr3_lmax2_l2")
    features = random_features(UNIFORM)
    components = np.concatenate([features[l] for l in UNIFORM], axis=1)
    module = SymmetricContraction(2, 3, 3)
    params = random_parameters(module, components, SPECIES)
    result = jax.jit(module.apply)({"params": params}, *on_device((components, SPECIES)))
    for degree in range(3):
        expected = np.zeros((ATOMS, 2 * degree + 1, 2))
        for atom in range(ATOMS):
            for channel in range(2):
                for order in (1, 2, 3):
                    weight = params[f"degree_{degree}_order_{order}"][SPECIES[atom], :, channel]
                    expected[atom, :, channel] += (
                        contracted(tensors[degree, order], components[atom, :, channel]) @ weight
                    )
        assert_close(result[degree], expected, 1e-12)


def test_harmonics_have_unit_mean_square_and_begin_with_y_z_x():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    harmonics = np.asarray(edge_harmonics(jnp.asarray(vectors), 3))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert_close(harmonics[:, 0], np.ones(6), 1e-14)
    assert_close(harmonics[:, 1:4], np.sqrt(3) * directions[:, [1, 2, 0]], 1e-14)
    for degree in range(4):
        squares = np.mean(harmonics[:, degree**2 : (degree + 1) ** 2] ** 2, axis=1)
        assert_close(squares, np.ones(6), 1e-13)
    longer = edge_harmonics(jnp.asarray(7.0 * vectors), 3)
    assert_close(longer, harmonics, 1e-13)


def test_layout_of_e3nn_round_trip():
    flat = jnp.asarray(np.arange(2.0 * 9).reshape(2, 9))
    features = from_e3nn(flat, "3x0e + 2x1o")
    np.testing.assert_array_equal(features[1][0], [[3, 6], [4, 7], [5, 8]])
    np.testing.assert_array_equal(to_e3nn(features), flat)


@pytest.mark.parametrize(
    ("irreps", "message"),
    [
        ("16x0e + banana", "hidden_irreps: expected irreps such as '32x0e [+] 32x1o', found"),
        ("16x0o", r"hidden_irreps: 0o has not the natural parity .* expected 0e, 1o, 2e, 3o"),
        ("0x0e", "hidden_irreps: expected at least one channel, found '0x0e'"),
    ],
)
def test_irreps_that_the_models_do_not_have_are_refused(irreps, message):
    with pytest.raises(IrrepsError, match=message):
        parse_multiplicities(irreps, option="hidden_irreps")


@pytest.mark.parametrize("irreps", ["16x0e + 8x1o", "16x0e + 16x2e", "16x1o"])
def test_hidden_irreps_need_the_same_channels_in_every_degree(irreps):
    with pytest.raises(IrrepsError, match="hidden_irreps: expected the same number of channels"):
        parse_uniform_irreps(irreps, option="hidden_irreps")
