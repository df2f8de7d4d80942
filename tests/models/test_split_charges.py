"""Split charges: conservation, polarization under periodicity, settings that matter, bad input."""

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
    slab,
    structure,
    tiny_settings,
)

from mace_scf_jax.data.batching import required_sizes
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models import (
    FormalChargeSettings,
    ModelSettings,
    SplitChargeSettings,
    build,
    check_inputs,
    required_inputs,
)
from mace_scf_jax.models.families.split_charges.model import cartesian_tensor
from mace_scf_jax.models.families.split_charges.options import (
    NO_FIELD_BLOCK,
    NO_MIXER,
    OXIDATION_DEPENDENT_BLOCK,
    PRODUCT_MIXER,
    SUM_MIXER,
)

ROUND_OFF = 1e-12


def split_settings(*, formal_charges=(0.9, -1.9), max_l=1, r_max=3.0, **changes) -> ModelSettings:
    settings = tiny_settings("LocalSplitCharges", r_max=r_max)
    return dataclasses.replace(
        settings,
        own=SplitChargeSettings(formal_charges=formal_charges, **changes),
        electrostatics=dataclasses.replace(settings.electrostatics, max_l=max_l),
    )


@functools.cache
def compiled(settings):
    """Outputs without derivatives."""
    module = build(settings)
    return jax.jit(lambda params, graph: module.apply({"params": params}, graph))


def predict(settings, structures, layout="flat"):
    graph = batch_of(structures, required_sizes(structures, layout).rounded())
    return compiled(settings)(random_parameters(build(settings), graph), graph), graph


@pytest.mark.parametrize(
    ("block", "mixer", "layout"),
    [
        (OXIDATION_DEPENDENT_BLOCK, SUM_MIXER, "per_atom"),
        pytest.param(OXIDATION_DEPENDENT_BLOCK, PRODUCT_MIXER, "flat", marks=pytest.mark.slow),
        (NO_FIELD_BLOCK, NO_MIXER, "per_atom"),
        pytest.param(NO_FIELD_BLOCK, SUM_MIXER, "flat", marks=pytest.mark.slow),
    ],
)
def test_the_total_charge_is_the_sum_of_the_formal_charges(block, mixer, layout):
    # within 4.5 Å atoms of the periodic structures see several images of each other and themselves
    settings = split_settings(r_max=4.5, transfer_block=block, oxidation_state_mixer=mixer)
    structures = [structure(atoms, settings) for atoms in (molecule(), periodic(), slab())]
    assert any(np.any(entry.senders == entry.receivers) for entry in structures)
    outputs, _ = predict(settings, structures, layout)
    charges = outputs["multipoles"][:15, 0].reshape(3, 5)
    formal = np.tile([-1.9, 0.9, 0.9, -1.9, 0.9], (3, 1))
    assert np.all(np.abs(charges - formal) > 1e-4)  # something was transferred
    np.testing.assert_allclose(outputs["total_charge"][:3], formal.sum(axis=1), atol=ROUND_OFF)


def test_charge_stays_on_a_fragment_beyond_the_cutoff():
    settings = split_settings()
    atoms = molecule()
    apart = atoms + atoms
    apart.positions[5:] += [12.0, 0.0, 0.0]
    outputs, _ = predict(settings, [structure(apart, settings)])
    charges = np.asarray(outputs["multipoles"][:10, 0]).reshape(2, 5)
    np.testing.assert_allclose(charges.sum(axis=1), 3 * 0.9 - 2 * 1.9, atol=ROUND_OFF)


def crossing(distance: float, wrapped: bool):
    """The last atom at a distance beyond the face of the first lattice vector; wrapped or not."""
    atoms = periodic()
    scaled = atoms.get_scaled_positions(wrap=False)
    scaled[4, 0] = 1.0 + distance / 3.7 - wrapped
    atoms.set_scaled_positions(scaled)
    return atoms


def test_polarization_across_a_cell_face_jumps_by_the_formal_charge_quantum():
    settings = split_settings()
    step = 1e-7
    places = [crossing(-step, False), crossing(step, False), crossing(step, True)]
    outputs, _ = predict(settings, [structure(atoms, settings) for atoms in places])
    before, outside, wrapped = np.asarray(outputs["dipole"][:3])
    quantum = 0.9 * np.asarray(places[0].cell)[0]
    np.testing.assert_allclose(outside - wrapped, quantum, atol=1e-11)
    np.testing.assert_allclose(before - wrapped, quantum, atol=100 * step)
    # the transfers alone do not see where the cell begins
    charges = np.asarray(outputs["multipoles"][:15, 0]).reshape(3, 5)
    np.testing.assert_allclose(charges[2], charges[1], atol=1e-12)


def test_polarization_of_a_molecule_is_its_dipole():
    """Σ F r + Σ p_ji r_ji = Σ Q r without periodic images."""
    settings = split_settings()
    outputs, graph = predict(settings, [structure(molecule(), settings)])
    charges, dipoles = outputs["multipoles"][:, :1], outputs["multipoles"][:, [3, 1, 2]]
    expected = jnp.sum((charges * graph.positions + dipoles)[:5], axis=0)
    assert_close(outputs["dipole"][0], expected, 1e-13)


def test_charges_only():
    settings = split_settings(max_l=0)
    outputs, graph = predict(settings, [structure(molecule(), settings)])
    assert outputs["multipoles"].shape == (graph.num_atoms, 1)
    expected = jnp.sum((outputs["multipoles"] * graph.positions)[:5], axis=0)
    assert_close(outputs["dipole"][0], expected, 1e-13)


def test_formal_charges_of_the_data_act_like_those_of_the_elements():
    by_element, from_data = split_settings(), split_settings(formal_charges=None)
    atoms = molecule()
    atoms.set_array("charges", np.where(atoms.numbers == 8, -1.9, 0.9))
    expected, _ = predict(by_element, [structure(atoms, by_element)])
    outputs, _ = predict(from_data, [structure(atoms, from_data)])
    for name in expected:
        assert_close(outputs[name], expected[name], 1e-14, name)


@pytest.mark.parametrize("changed", ["transfer_range", "oxidation_state_range"])
def test_ranges_of_oxidation_states_reach_the_model(changed):
    settings, other = split_settings(), split_settings(**{changed: (-4.0, 4.0)})
    structures = [structure(molecule(), settings)]
    one, two = predict(settings, structures)[0], predict(other, structures)[0]
    assert np.max(np.abs(one["multipoles"] - two["multipoles"])) > 1e-3


def test_every_parameter_matters():
    settings = split_settings(polarizability=True, oxidation_state_mixer=PRODUCT_MIXER)
    structures = [structure(molecule(), settings)]
    graph = batch_of(structures, required_sizes(structures, "per_atom").rounded())
    module = build(settings)

    def measure(params):
        outputs = module.apply({"params": params}, graph)
        return sum(
            jnp.sum(outputs[name] ** 2) for name in ("energy", "multipoles", "polarizability")
        )

    gradient = jax.jit(jax.grad(measure))(random_parameters(module, graph))
    for path, values in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(values)), path
        assert np.any(values != 0.0), path


def test_tensors_of_features_are_isotropic_or_traceless():
    rng = np.random.default_rng(0)
    scalar, traceless = rng.normal(size=(4, 1, 1)), rng.normal(size=(4, 5, 1))
    zero = {0: jnp.zeros((4, 1, 1)), 2: jnp.zeros((4, 5, 1))}
    isotropic = cartesian_tensor(zero | {0: jnp.asarray(scalar)})
    expected = scalar * np.eye(3) / np.sqrt(3.0)
    np.testing.assert_allclose(isotropic, expected, atol=1e-14)
    tensor = np.asarray(cartesian_tensor(zero | {2: jnp.asarray(traceless)}))
    np.testing.assert_allclose(np.trace(tensor, axis1=1, axis2=2), 0.0, atol=1e-14)
    np.testing.assert_allclose(tensor, np.swapaxes(tensor, 1, 2), atol=1e-14)
    norms = np.linalg.norm(tensor, axis=(1, 2))
    np.testing.assert_allclose(norms, np.linalg.norm(traceless[..., 0], axis=1), rtol=1e-13)


def test_polarizability_only_where_it_is_asked_for():
    settings = split_settings()
    structures = [structure(molecule(), settings)]
    assert "polarizability" not in predict(settings, structures)[0]
    settings = split_settings(polarizability=True)
    polarizability = np.asarray(predict(settings, structures)[0]["polarizability"])
    assert polarizability.shape == (2, 3, 3)
    assert_close(polarizability, np.swapaxes(polarizability, 1, 2), 1e-14)
    assert np.all(polarizability[1] == 0.0)  # padding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer_block": "NoFieldBlock"}, "unknown transfer block 'NoFieldBlock'"),
        ({"oxidation_state_mixer": "SumMixer"}, "unknown oxidation state mixer 'SumMixer'"),
        ({"oxidation_state_range": (2.0, -2.0)}, "oxidation_state_range: expected the lowest"),
        ({"transfer_range": (-2.0, float("inf"))}, "transfer_range: expected the lowest"),
        ({"formal_charges": (1.0,)}, r"expected one charge for each of the elements \(1, 8\)"),
        ({"transfer_range": (-1.0, 1.0)}, "found -1.9 e for element 8, .* range .* -1 to 1 e"),
        ({"oxidation_state_range": (-1.0, 1.0)}, "found -1.9 e for element 8"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(split_settings(**changes))


def test_a_range_that_nothing_uses_limits_nothing():
    settings = split_settings(
        transfer_block=NO_FIELD_BLOCK,
        oxidation_state_mixer=NO_MIXER,
        transfer_range=(-1.0, 1.0),
        oxidation_state_range=(-1.0, 1.0),
    )
    build(settings)


def test_settings_belong_to_the_family():
    settings = split_settings()
    with pytest.raises(ValueError, match="LocalSplitCharges needs SplitChargeSettings"):
        build(dataclasses.replace(settings, own=FormalChargeSettings((0.9, -1.9))))
    with pytest.raises(ValueError, match="MACE has no settings of its own, found Split"):
        build(dataclasses.replace(settings, family="MACE"))


def test_structures_without_formal_charges_are_refused():
    settings = split_settings(formal_charges=None)
    assert required_inputs(settings) == ("charges",)
    assert required_inputs(split_settings()) == ()
    atoms = molecule()
    check_inputs(split_settings(), from_atoms(atoms))
    with pytest.raises(DataError, match="LocalSplitCharges reads 'charges' of every atom"):
        check_inputs(settings, from_atoms(atoms))
    atoms.set_array("charges", np.zeros(5))
    check_inputs(settings, from_atoms(atoms))
    atoms.set_array("charges", np.array([0.0, 0.0, 7.0, 0.0, 0.0]))
    with pytest.raises(DataError, match=r"found formal charges from 0 to 7 e, .* -6 to 6 e"):
        check_inputs(settings, from_atoms(atoms))
