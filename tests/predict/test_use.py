"""Options of every use of a model: the same answer from all of them, and nothing swallowed."""

from __future__ import annotations

import dataclasses
import pickle
import warnings

import ase
import jax
import numpy as np
import pytest
from ase.io import write
from tiny_models import molecule, periodic, tiny_model

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.models import SelfConsistency
from mace_scf_jax.models.response import DipoleResponse
from mace_scf_jax.predict import Committee, evaluate_file, load_model, predict_response
from mace_scf_jax.predict.suitability import BoundaryWarning, UnusedInputWarning
from mace_scf_jax.scf import LinearMixing

HEADS = {
    "water": {
        "info_keys": {"energy": "REF_energy", "total_charge": "charge", "external_field": "efield"},
        "arrays_keys": {"forces": "REF_forces"},
    }
}


@pytest.fixture(scope="module")
def trained():
    """A model whose training had keys of its own."""
    return dataclasses.replace(tiny_model("MACEQEq"), record={"heads": HEADS})


def ion(**info) -> ase.Atoms:
    atoms = molecule()
    atoms.info = info
    return atoms


def read_charge(model, atoms: ase.Atoms) -> float:
    return float(model.read(atoms).values["total_charge"])


# Keys


def test_keys_of_the_training_are_read_in_predictions_and_files(trained, tmp_path):
    field = [0.0, 0.1, 0.0]
    plain = tiny_model("MACEQEq").predict(ion(total_charge=1.0, external_field=field))["energy"]
    atoms = ion(charge=1.0, efield=field)
    assert trained.predict(atoms)["energy"] == pytest.approx(plain, abs=1e-12)
    write(tmp_path / "ion.xyz", atoms, format="extxyz")
    (predicted,) = evaluate_file(trained, tmp_path / "ion.xyz").predictions
    assert predicted["energy"] == pytest.approx(plain, abs=1e-4)  # 8 digits of a position


def test_names_of_inputs_are_read_beside_the_keys_of_the_training(trained):
    assert read_charge(trained, ion(charge=1.0)) == 1.0
    assert read_charge(trained, ion(total_charge=1.0)) == 1.0
    assert read_charge(trained, ion(charge=1.0, total_charge=1.0)) == 1.0
    assert read_charge(trained, ion()) == 0.0
    with pytest.raises(DataError, match=r"twice, charge=1.0 .* total_charge=0.0"):
        read_charge(trained, ion(charge=1.0, total_charge=0.0))


def test_given_keys_come_first_name_by_name(trained):
    atoms = ion(q=2.0, charge=1.0, total_charge=0.0, efield=[0.1, 0.0, 0.0])
    specification = KeySpecification({"total_charge": "q"}, {})
    heads = {"any": {"info_keys": {"total_charge": "q"}, "arrays_keys": None}}
    for keys in ({"total_charge": "q"}, specification, heads):
        values = trained.using(keys=keys).read(atoms).values
        assert values["total_charge"] == 2.0
        assert values["external_field"].tolist() == [0.1, 0.0, 0.0]
    assert trained.using(keys={"total_charge": "q"}).keys.key_of("energy") == "REF_energy"
    for keys, message in (
        ({"total_charges": "q"}, "unknown property 'total_charges'"),
        ("charge", "found 'charge', expected a mapping"),
    ):
        with pytest.raises(DataError, match=message):
            trained.using(keys=keys)


# Precision, device, boundary


def test_another_precision_and_back():
    model = tiny_model()
    single = model.using(dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(single.parameters)} == {np.dtype("float32")}
    exact, rounded = model.predict(molecule()), single.predict(molecule())
    deviation = np.abs(rounded["forces"] - exact["forces"]).max()
    assert 0.0 < deviation < 1e-3 * np.abs(exact["forces"]).max()
    assert single.using(dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="dtype: expected float32 or float64, found 'float16'"):
        model.using(dtype="float16")


def test_devices():
    model = tiny_model().using(device="cpu")
    for copied in (model, pickle.loads(pickle.dumps(model)), model.using(dtype="float32")):
        assert copied.device == "cpu"
        assert jax.tree.leaves(copied.parameters)[0].device.platform == "cpu"
    for name in ("quantum", "cpu:99", "cpu:x"):
        with pytest.raises(ValueError, match=f"device: found '{name}', expected one of cpu:0"):
            model.using(device=name)


def test_another_boundary_condition():
    model = tiny_model()
    open_sum = model.using(pbc_handling="realspace")
    assert open_sum.settings.electrostatics.boundary == "realspace"
    written = dataclasses.replace(model.settings.electrostatics, boundary="realspace")
    trained_so = dataclasses.replace(
        model, settings=dataclasses.replace(model.settings, electrostatics=written)
    )
    expected = trained_so.predict(molecule())["energy"]
    assert model.predict(molecule(), pbc_handling="realspace")["energy"] == expected
    assert abs(expected - model.predict(molecule())["energy"]) > 1e-6
    with pytest.raises(ValueError, match=r"boundary must be one of .* found 'periodic'"):
        model.using(pbc_handling="periodic")
    with pytest.raises(ValueError, match="found 'auto', which training resolves"):
        model.using(pbc_handling="auto")
    with pytest.raises(ValueError, match="pbc_handling: expected a model with electrostatics"):
        tiny_model("MACE").using(pbc_handling="realspace")


def test_a_wrong_boundary_condition_is_said_once():
    model = load_model(tiny_model(), sums="direct")
    with pytest.warns(BoundaryWarning, match=r"net charge .* pbc_handling='exact'") as found:
        model.prepare_atoms([ion(total_charge=1.0), ion(total_charge=-1.0)])
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.using(pbc_handling="realspace").prepare_atoms([ion(total_charge=1.0)])
        load_model(model, sums="auto").prepare_atoms([ion(total_charge=0.0), periodic()])


def test_inputs_that_a_family_does_not_read_are_said_once():
    model = load_model(tiny_model("MACE"), dtype="float64")
    with pytest.warns(UnusedInputWarning, match="found total_charge, which models") as found:
        model.prepare_atoms([ion(total_charge=5.0), ion(total_charge=-1.0)])
    assert len(found) == 1


# Everything else


def test_nothing_is_swallowed():
    model = tiny_model()
    for use in (model.using, lambda **given: load_model(model, **given)):
        with pytest.raises(TypeError, match="unknown keyword 'sum'; did you mean 'sums'"):
            use(sum="mesh")
        with pytest.raises(TypeError, match=r"total_charge.*atoms.info"):
            use(total_charge=1.0)
    with pytest.raises(TypeError, match="unknown keyword 'boundary'; it is called pbc_handling"):
        model.predict(molecule(), boundary="pbc")


def test_nothing_changes_nothing():
    model = tiny_model()
    assert model.using() is model
    assert model.using(sums=None, dtype=None, head="default") is model


def test_heads(trained):
    assert trained.using(head="water") is trained
    with pytest.raises(ValueError, match="head: found 'pbe', expected 'water'"):
        trained.using(head="pbe")


def test_committees_are_used_like_models():
    committee = Committee((tiny_model(), tiny_model(seed=1))).using(dtype="float32", sums="mesh")
    assert [member.dtype for member in committee.members] == [np.float32, np.float32]
    assert committee.first.settings.electrostatics.sums == "mesh"


def test_responses_are_solved_as_the_model_is_told(monkeypatch):
    told = []

    def response(module, parameters, graph, *, how, periodic):
        told.append(how)
        nothing = np.zeros((graph.num_atoms, 3, 3))
        return DipoleResponse(nothing[0], None, nothing)

    monkeypatch.setattr("mace_scf_jax.predict.response.dipole_response", response)
    rough = SelfConsistency(solver=LinearMixing(max_steps=1))
    predict_response(tiny_model("FixedPoint"), molecule(), scf=rough)
    assert told == [rough]
