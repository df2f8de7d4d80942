"""LocalCharges: charge beyond the total charge, and what it does in a field."""

from __future__ import annotations

import dataclasses
import functools
import types

import ase
import jax
import numpy as np
import pytest
from reference_models import REFERENCE
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

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.models import LocalChargesSettings, ModelSettings, build
from mace_scf_jax.models.families.local_charges.settings import charges_of_elements
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.surplus import FieldWarning, SurplusChargeWarning
from mace_scf_jax.pytorch import import_model
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file

LEARNED = LocalChargesSettings("learned", (0.4, -0.8), ((0.2, -0.4), (-0.4, 0.8)))
"""Water is neutral, OH⁻ is not told; as much as that leaves open is learned."""
WAYS = {
    "none": LocalChargesSettings(),
    "uniform": LocalChargesSettings("uniform"),
    "learned": LEARNED,
}
FIELD = np.array([0.05, -0.02, 0.1])


def settings_with(way: str, **changes) -> ModelSettings:
    settings = tiny_settings(num_interactions=2)
    return dataclasses.replace(
        settings,
        own=WAYS[way],
        electrostatics=dataclasses.replace(settings.density, **changes),
    )


@functools.cache
def model_with(way: str, *, at_centre: bool = True) -> Model:
    settings = settings_with(way, surplus_at_centre=at_centre)
    graph = batch_of([structure(molecule(), settings)])
    return Model(settings, random_parameters(build(settings), graph))


def water(*, at: float = 0.0, field: np.ndarray | None = None) -> ase.Atoms:
    positions = np.array([[0, 0, 0], [0.98, 0.02, 0], [-0.22, 0.95, 0.03]]) + at
    info = {} if field is None else {"external_field": field}
    return ase.Atoms("OHH", positions=positions, info=info)


@pytest.mark.parametrize("way", [pytest.param("uniform", marks=pytest.mark.slow), "learned"])
def test_charges_add_up_to_the_total_charge_of_the_structure(way):
    structures = [molecule(), periodic(), slab(), water()]
    found = model_with(way).predict(structures, forces=False)
    for atoms, prediction in zip(structures, found, strict=True):
        wanted = atoms.info.get("total_charge", 0.0)
        np.testing.assert_allclose(prediction["total_charge"], wanted, atol=1e-12)
        assert np.ptp(prediction["multipoles"][:, 0]) > 1e-3


def test_an_ion_far_away_does_not_change_a_neutral_molecule():
    model = model_with("learned")
    apart = water() + ase.Atoms("OH", [[20.0, 0, 0], [20.9, 0.1, 0]])
    charge_of_ion = float(np.sum(model.predict(apart[3:], forces=False)["multipoles"][:, 0]))
    assert abs(charge_of_ion) < 1e-12  # neutral, unless told otherwise
    elements = np.array(LEARNED.element_charges)
    learned = np.asarray(model.parameters["conservation"]["element_charges"])
    elements += np.array(LEARNED.free_charges) @ learned
    apart.info["total_charge"] = float(np.sum(elements))  # of OH
    assert abs(apart.info["total_charge"]) > 0.1
    alone, together = (model.predict(atoms, forces=False) for atoms in (water(), apart))
    assert_close(together["multipoles"][:3], alone["multipoles"], 1e-10)
    np.testing.assert_allclose(together["multipoles"][:3, 0].sum(), 0.0, atol=1e-12)
    # other families of corrections fail here
    alone, together = (
        model_with("uniform").predict(atoms, forces=False) for atoms in (water(), apart)
    )
    assert np.max(np.abs(together["multipoles"][:3] - alone["multipoles"])) > 1e-3


def test_charge_that_the_composition_does_not_tell_is_shared_by_weight():
    model, charged = model_with("learned"), water()
    charged.info["total_charge"] = -1.0
    one, other = model.predict([charged, water()], forces=False)
    change = one["multipoles"][:, 0] - other["multipoles"][:, 0]
    np.testing.assert_allclose(change.sum(), -1.0, atol=1e-12)
    assert np.all(change < 0.0)


def test_learned_charges_are_continuous_at_the_cutoff():
    model = model_with("learned")
    pairs = [water() + water() for _ in range(2)]
    for distance, pair in zip((2.9999, 3.0001), pairs, strict=True):
        pair.positions[3:] = pair.positions[:3] * [-1, 1, 1] - [distance, 0, 0]
    inside, outside = (entry["multipoles"] for entry in model.predict(pairs, forces=False))
    assert_close(inside, outside, 1e-3)


def test_polarization_does_not_depend_on_images_but_for_charges_of_elements():
    model, atoms = model_with("learned"), periodic()
    atoms.info = {}
    elsewhere = atoms.copy()
    elsewhere.positions[1] += atoms.cell[0]
    one, other = model.predict([atoms, elsewhere], forces=False)
    assert_close(other["multipoles"], one["multipoles"], 1e-10)
    quantum = (other["dipole"] - one["dipole"]) / atoms.cell[0, 0]
    assert abs(quantum[0]) > 0.01
    np.testing.assert_allclose(quantum[1:], 0.0, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_forces_in_a_field_do_not_depend_on_the_origin(way, charge):
    model = model_with(way)
    structures = [water(at=shift, field=FIELD) for shift in (0.0, 15.0, 100.0)]
    for atoms in structures:
        atoms.info["total_charge"] = charge
    first, *others = model.predict(structures)
    for prediction in others:
        assert_close(prediction["forces"], first["forces"], 1e-9)
    moved = others[0]["energy"] - first["energy"]
    np.testing.assert_allclose(moved, charge * 15.0 * FIELD.sum(), atol=1e-9)
    net = first["forces"].sum(axis=0)  # an ion feels Q E; the field is the gradient of a potential
    np.testing.assert_allclose(net, -charge * FIELD, atol=1e-9)


def test_models_from_before_keep_their_numbers_and_say_so():
    stored = model_with("none", at_centre=False)
    structures = [water(at=shift, field=FIELD) for shift in (0.0, 100.0)]
    with pytest.warns(FieldWarning, match="refers them to the origin"):
        first, other = stored.predict(structures)
    assert np.max(np.abs(other["forces"] - first["forces"])) > 1e-3
    for place in ("centre", "uniform"):
        first, other = stored.with_surplus(place).predict(structures)
        assert_close(other["forces"], first["forces"], 1e-9)
    with pytest.warns(FieldWarning, match="along a periodic direction"):
        stored.prepare(from_atoms(_with_field(periodic())))
    with pytest.raises(ValueError, match="surplus: expected a model whose charges"):
        model_with("learned").with_surplus("centre")


def _with_field(atoms: ase.Atoms) -> ase.Atoms:
    atoms.info["external_field"] = FIELD
    return atoms


def test_charge_beyond_the_total_charge_is_warned_of():
    with pytest.warns(SurplusChargeWarning, match=r"beyond total_charge: .*expected \+0 e"):
        model_with("none").predict(water())


def labelled(atoms: ase.Atoms, charge: float, *charges: float) -> ase.Atoms:
    atoms.info["total_charge"] = charge
    if charges:
        atoms.arrays["p"] = np.array(charges)
    return atoms


KEYS = KeySpecification.from_heads(
    {
        "Default": {
            "info_keys": {"total_charge": "total_charge"},
            "arrays_keys": {"atomic_multipoles": "p"},
        }
    }
)


def measured(*structures: ase.Atoms):
    prepared = [
        prepare(
            from_atoms(atoms, keys=KEYS, multipoles_max_l=0), elements=(1, 8, 11, 17), cutoff=3.0
        )
        for atoms in structures
    ]
    return charges_of_elements([jax.tree.map(np.asarray, collate(prepared))], 4)


def test_charges_of_elements_follow_from_the_compositions():
    water_molecule = labelled(water(), 0.0, -0.7, 0.3, 0.4)
    sodium = labelled(water() + ase.Atoms("Na", [[0, 0, 2.4]]), 1.0)
    pair = labelled(ase.Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]]), 0.0)
    attached = labelled(water(), -1.0)
    found = measured(attached, water_molecule, sodium, pair)
    hydrogen, oxygen, *ions = found.charges
    np.testing.assert_allclose(ions, [1.0, -1.0], atol=1e-11)
    np.testing.assert_allclose(2 * hydrogen + oxygen, 0.0, atol=1e-11)
    np.testing.assert_allclose(hydrogen, 0.35, atol=1e-11)  # the means add up by themselves
    free = np.array(found.free)
    np.testing.assert_allclose(free[:2, :2], [[0.2, -0.4], [-0.4, 0.8]], atol=1e-11)
    np.testing.assert_allclose(free[2:], 0.0, atol=1e-11)
    assert found.remainder < 1e-11
    neutral_alone = measured(labelled(ase.Atoms("H"), 0.0), labelled(ase.Atoms("O"), 0.0))
    assert neutral_alone.charges[:2] == (0.0, 0.0)
    contradiction = measured(
        labelled(ase.Atoms("H"), 0.0),
        labelled(ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), 1.0),
    )
    assert contradiction.remainder > 0.1


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="expected element_charges with learned"):
        LocalChargesSettings("learned")
    with pytest.raises(ValueError, match="expected element_charges with learned"):
        LocalChargesSettings("none", (0.1, 0.2))
    settings = dataclasses.replace(settings_with("none"), own=LocalChargesSettings("learned", (1,)))
    with pytest.raises(ValueError, match="expected one number for each of the elements"):
        build(settings)
    stored = settings_with("learned").to_dict()
    assert ModelSettings.from_dict(stored) == settings_with("learned")
    for name in ("conserve_charge", "element_charges", "free_charges"):
        stored.pop(name)
    stored["electrostatics"].pop("surplus_at_centre")
    assert ModelSettings.from_dict(stored) == settings_with("none")


def test_the_stress_of_latent_charges_is_that_of_the_whole_energy():
    """PyTorch leaves out how the Coulomb energy changes with the cell."""
    path = REFERENCE / "foundation" / "maceles.npz"
    model, inputs = import_model(path), read_reference_file(path).inputs
    own = inputs["batch"] == 1
    numbers = np.array(model.settings.elements)[np.argmax(inputs["node_attrs"][own], axis=1)]
    crystal = ase.Atoms(numbers, inputs["positions"][own], cell=inputs["cell"][1], pbc=True)
    step = 1e-4
    strained = []
    for sign in (1.0, -1.0):
        shear = np.eye(3)
        shear[0, 1] = shear[1, 0] = sign * step
        strained.append(crystal.copy())
        strained[-1].set_cell(crystal.cell @ shear, scale_atoms=True)
    with pytest.warns(SurplusChargeWarning):
        found, *others = model.predict([crystal, *strained], stress=True)
    difference = others[0]["energy"] - others[1]["energy"]
    expected = difference / (4.0 * step * crystal.get_volume())
    # a component of 9e-7 eV/Å³: energies are rounded to 1e-5 of their difference
    assert found["stress"][0, 1] == pytest.approx(expected, rel=1e-4)


def test_multipoles_are_read_with_hidden_features_where_an_option_says_so():
    options = dict(conserve_charge="none", charge_readout="nonlinear", num_interactions=2)
    training = TrainingSet((1, 8), (0.0, 0.0), None, None, list)  # type: ignore[arg-type]
    own = LocalChargesSettings.from_options(
        types.SimpleNamespace(**options, backbone="MACE"), training
    )
    with pytest.raises(ConfigurationError, match="expected the backbone MACE, found chebyshev"):
        LocalChargesSettings.from_options(
            types.SimpleNamespace(**options, backbone="chebyshev"), training
        )
    assert own == LocalChargesSettings("none", read_like_energies=True)
    assert own.as_options((1, 8)) == {"conserve_charge": "none", "charge_readout": "nonlinear"}
    settings = dataclasses.replace(settings_with("none"), own=own)
    module = build(settings)
    params = random_parameters(module, batch_of([structure(molecule(), settings)]))
    hidden = params["multipole_readout_1"]["hidden_0"]
    assert {name: value.shape for name, value in hidden.items()} == {
        "degree_0": (2, 2 + 2),  # of degree 0, and gates of degree 1
        "degree_1": (2, 2),
    }
    assert "hidden_0" not in params["multipole_readout_0"]
    model = Model(settings, params)
    still, turned = molecule(), molecule()
    turned.rotate(35.0, (1.0, 2.0, 3.0), center=(0.0, 0.0, 0.0))
    predictions = model.predict([still, turned], forces=False)
    of_still, of_turned = (each["multipoles"] for each in predictions)
    assert np.ptp(of_still[:, 0]) > 1e-3
    assert np.max(np.abs(of_still[:, 1:])) > 1e-3
    assert_close(of_turned[:, 0], of_still[:, 0], 1e-10)
    assert_close(
        np.linalg.norm(of_turned[:, 1:], axis=1), np.linalg.norm(of_still[:, 1:], axis=1), 1e-10
    )
    assert not np.allclose(of_turned[:, 1:], of_still[:, 1:])
