"""The sign of latent charges: opposite charges at the same energies, and the rule between them."""

from __future__ import annotations

import dataclasses

import ase
import jax
import numpy as np
import pytest
from ase.io import write
from tiny_models import (
    SMALL_TRAINING,
    assert_close,
    batch_of,
    molecule,
    random_parameters,
    structure,
    tiny_model,
)

from mace_scf_jax.models import LocalChargesSettings, SplitChargeSettings, build
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.training.charge_sign import Comparison, labels_that_tell, mirrored
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.run import train
from mace_scf_jax.training.start.beginning import with_small_charges

OWN = {
    "nonlinear": ("LocalCharges", LocalChargesSettings(read_like_energies=True)),
    "learned": (
        "LocalCharges",
        LocalChargesSettings("learned", (0.0, 0.0), ((0.2, -0.4), (-0.4, 0.8))),
    ),
    "split": ("LocalSplitCharges", SplitChargeSettings(formal_charges=(0.0, 0.0))),
    "equilibrated": ("MACEQEq", None),
    "self-consistent": ("FixedPoint", None),
}
QUICK = ("nonlinear", "self-consistent")


def neutral() -> ase.Atoms:
    """A molecule without charge and field."""
    atoms = molecule()
    atoms.info = {}
    return atoms


def model_of(case: str) -> Model:
    """A model of two layers with random parameters."""
    family, own = OWN[case]
    model = tiny_model(family, num_interactions=2)
    if own is None:
        return model
    settings = dataclasses.replace(model.settings, own=own)
    graph = batch_of([structure(neutral(), settings)])
    return Model(settings, random_parameters(build(settings), graph))


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OWN]
)
def test_the_mirrored_model_has_the_opposite_multipoles_at_the_same_energy(case):
    model = model_of(case)
    other = dataclasses.replace(model, parameters=mirrored(model.settings, model.parameters))
    one, two = (it.predict(neutral(), forces=False) for it in (model, other))
    assert np.max(np.abs(one["multipoles"])) > 1e-3
    assert_close(
        two["multipoles"], -one["multipoles"], 1e-5 if case == "self-consistent" else 1e-12
    )
    assert two["energy"] == pytest.approx(one["energy"], abs=1e-5)


@pytest.mark.parametrize(
    "case", ["nonlinear", pytest.param("equilibrated", marks=pytest.mark.slow)]
)
def test_charges_that_begin_small_are_linear_in_what_is_scaled(case):
    model = model_of(case)
    graph = jax.device_get(batch_of([structure(neutral(), model.settings)]))
    scaled = with_small_charges(model.settings, model.parameters, [graph], charge=0.01)
    found = dataclasses.replace(model, parameters=scaled).predict(neutral(), forces=False)
    assert np.sqrt(np.mean(found["charges"] ** 2)) == pytest.approx(0.01, rel=1e-6)


def test_families_without_such_a_symmetry_have_no_mirrored_model():
    model = tiny_model("PolarMACE")
    assert mirrored(model.settings, model.parameters) is None


def test_the_rule_is_the_covariance_with_electronegativities():
    halves = Comparison({1: -0.4, 8: 0.8}, {1: 2 / 3, 8: 1 / 3}, of_born=False, is_mirrored=True)
    assert halves.covariance == pytest.approx(2 / 9 * 1.2 * (3.44 - 2.20))
    assert Comparison({1: 0.1}, {1: 1.0}, of_born=False, is_mirrored=True).covariance is None
    assert (
        Comparison({2: 0.1, 8: 0.1}, {2: 0.5, 8: 0.5}, of_born=False, is_mirrored=True).covariance
        is None
    )


def test_labels_that_tell_the_sign():
    with_dipoles = Stage(name="a", start=0, end=0, loss={"forces": 1.0, "dipole": 1.0})
    without = Stage(name="b", start=1, end=1, loss={"forces": 1.0})
    labels = {"forces": 5, "dipole": 2, "atomic_multipoles": 5}
    assert labels_that_tell((with_dipoles, without), labels) == ("dipole",)
    assert labels_that_tell((without,), labels) == ()
    assert labels_that_tell((with_dipoles,), {"forces": 5}) == ()


PROGRAMS = Programs()


def water(index: int) -> ase.Atoms:
    rng = np.random.default_rng(index)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    atoms = ase.Atoms("OH2", positions + rng.normal(scale=0.05, size=(3, 3)))
    atoms.info["REF_energy"] = -14.0 + rng.normal(scale=0.1)
    atoms.arrays["REF_forces"] = rng.normal(scale=0.3, size=(3, 3))
    return atoms


def trained(folder, name: str, *, info_keys=None, loss=None, **changes) -> Model:
    """After an epoch, which ends with positive oxygen."""
    energy, forces = {"energy": "REF_energy"}, {"forces": "REF_forces"}
    keys = {"info_keys": energy | (info_keys or {}), "arrays_keys": forces}
    stage = {"name": "a", "start": 0, "end": 0, "loss": {"forces": 1.0} | (loss or {})}
    options = {
        **SMALL_TRAINING,
        "name": name,
        "model": "LocalCharges",
        "train_file": folder / "train.xyz",
        "work_dir": folder,
        "E0s": "average",
        "r_max": 3.0,
        "valid_fraction": 0.4,
        "heads": {"Default": keys},
        "train_schedule": {0: stage},
        "seed": 2,
    }
    result = train(options | changes, programs=PROGRAMS)
    return load_model(result.models["a"])


def test_after_training_electronegative_elements_are_negative(tmp_path, capsys):
    structures = [water(index) for index in range(5)]
    write(tmp_path / "train.xyz", structures, format="extxyz")
    plain = trained(tmp_path, "plain", charge_sign="as_trained")
    assert "sign of the charges" not in capsys.readouterr().err
    ruled = trained(tmp_path, "ruled")
    told = capsys.readouterr().err
    assert "sign of the charges exchanged" in told
    assert "before: mean Born charges H -" in told
    one, two = (it.predict(water(9)) for it in (plain, ruled))
    for name in ("energy", "forces"):
        assert_close(two[name], one[name], 1e-12)
    assert one["charges"][0] > 0.1
    for name in ("multipoles", "dipole"):
        assert_close(two[name], -one[name], 1e-12)


def test_a_sign_that_the_data_tell_is_left(tmp_path, capsys):
    structures = [water(index) for index in range(5)]
    for atoms in structures:
        atoms.info.update(external_field=np.array([0.0, 0.05, 0.1]), REF_dipole=np.ones(3))
    write(tmp_path / "train.xyz", structures, format="extxyz")
    in_field = trained(tmp_path, "field", info_keys={"external_field": "external_field"})
    assert "positive on electronegative elements; it cannot be exchanged" in capsys.readouterr().err
    assert in_field.predict(water(9), forces=False)["charges"][0] > 0.1
    trained(tmp_path, "dipoles", info_keys={"dipole": "REF_dipole"}, loss={"dipole": 1.0})
    log = (tmp_path / "logs/dipoles_run-2.log").read_text()
    assert "sign of the charges as trained, by labels of dipole" in log
