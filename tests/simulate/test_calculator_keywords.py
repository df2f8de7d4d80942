"""Keywords of calculators: each has an effect, or is refused with what to do instead."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_models import assert_close, molecule, tiny_model

from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.models import required_inputs
from mace_scf_jax.predict import Committee
from mace_scf_jax.simulate import CommitteeCalculator, CoulombCalculator, MACESCFCalculator


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_charge": 1.0}, r"it belongs to the structure: atoms.info\['total_charge'\]"),
        ({"charge": 1}, r"it belongs to the structure: atoms.info\['total_charge'\]"),
        ({"external_field": [0, 0, 0.5]}, r"it belongs to the structure: atoms.info\['external_f"),
        ({"warmstart": True}, "unknown keyword 'warmstart'; did you mean 'warm_start'"),
        ({"model_type": "MACE"}, "it is what the model file says"),
        ({"xyzzy": 1}, "unknown keyword 'xyzzy'; known are"),
    ],
)
def test_unknown_keywords_are_refused(given, message):
    with pytest.raises(TypeError, match=message):
        MACESCFCalculator(tiny_model(), **given)
    with pytest.raises(TypeError, match=message):
        MACESCFCalculator(tiny_model()).set(**given)


def test_other_calculators_swallow_nothing_either():
    settings = ElectrostaticsSettings(max_l=0, smearing_width=1.0)
    with pytest.raises(TypeError, match="CoulombCalculator: unknown keyword 'multipole_key'; did"):
        CoulombCalculator(settings, multipole_key="q")
    assert CoulombCalculator(settings, directory="somewhere").directory == "somewhere"
    with pytest.raises(TypeError, match="CommitteeCalculator: unknown keyword 'total_charge'"):
        CommitteeCalculator(Committee((tiny_model(), tiny_model(seed=1))), total_charge=1.0)


def test_habits_from_pytorch_and_mace_lead_on():
    model = tiny_model()
    members = Committee((model, tiny_model(seed=1)))
    for calculator, of in ((MACESCFCalculator, model), (CommitteeCalculator, members)):
        with pytest.raises(TypeError, match=r"found 'cpu' after the model; .* device='cpu'"):
            calculator(of, "cpu")
        with pytest.raises(AttributeError, match="no attribute 'models': the model is `model`"):
            _ = calculator(of).models
        assert not hasattr(calculator(of), "xyzzy")
    for predictor in (model, members):
        with pytest.raises(AttributeError, match=r"no attribute 'to': .*using\(device='cuda'"):
            predictor.to("cuda")
        with pytest.raises(TypeError, match=r"not called; .predict\(atoms\) computes"):
            predictor(molecule())
        assert not hasattr(predictor, "xyzzy")


def test_options_have_their_effect():
    atoms, model = molecule(), tiny_model()
    calculator = MACESCFCalculator(model, pbc_handling="realspace", dtype="float32", sums="direct")
    atoms.calc = calculator
    expected = model.predict(molecule(), pbc_handling="realspace")
    assert_close(atoms.get_forces(), expected["forces"], 1e-3)
    assert calculator.model.dtype == np.float32
    assert calculator.evaluator.model.settings.electrostatics.boundary == "realspace"


def test_keywords_of_mace(tmp_path):
    tiny_model("MACEQEq").save(tmp_path / "model")
    path = str(tmp_path / "model")
    calculator = MACESCFCalculator(
        model_paths=[path],
        device="cpu",
        default_dtype="float32",
        charges_key="Qs",
        info_keys={"total_charge": "charge"},
        head="Default",
    )
    assert calculator.model.dtype == np.float32
    assert calculator.model.device == "cpu"
    keys = calculator.model.keys
    assert (keys.key_of("charges"), keys.key_of("total_charge")) == ("Qs", "charge")
    assert MACESCFCalculator(path, default_dtype="").model.dtype == np.float64
    for given, message in (
        ({}, "expected one model, found none"),
        ({"model": path, "model_paths": path}, "expected one model, found two"),
        ({"model": path, "dtype": "float32", "default_dtype": "float32"}, "found both dtype and"),
        ({"model": path, "keys": {}, "charges_key": "Qs"}, "found both keys and"),
        ({"model_paths": [path, path]}, "CommitteeCalculator"),
    ):
        with pytest.raises(TypeError, match=message):
            MACESCFCalculator(**given)
    committee = CommitteeCalculator(model_paths=[path, path], default_dtype="float32")
    assert committee.calculators[1].model.dtype == np.float32


def test_inputs_by_their_keys_are_noticed():
    """Keys of the training, and of atoms, and the plain names beside them."""
    info = {"total_charge": "charge"}
    heads = {"any": {"info_keys": info, "arrays_keys": {"hardness": "eta"}}}
    model = dataclasses.replace(tiny_model("MACEQEq"), record={"heads": heads})
    atoms, plain = molecule(), molecule()
    plain.calc = MACESCFCalculator(tiny_model("MACEQEq"))
    atoms.calc = MACESCFCalculator(model)
    del atoms.info["total_charge"]
    for name in required_inputs(model.settings):
        plain.arrays[name] = np.full(len(plain), 25.0)
        atoms.arrays[model.keys.key_of(name)] = plain.arrays[name]
    for key, charge in (("charge", 1.0), ("charge", 0.0), ("total_charge", 0.5)):
        atoms.info = {**plain.info, key: charge}
        atoms.info = {name: atoms.info[name] for name in (key, "external_field")}
        plain.info["total_charge"] = charge
        assert atoms.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-9)
