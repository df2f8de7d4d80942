"""Families with charges on the descriptor backbone: training by the command line, and forces."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml
from ase.io import write
from labelled_water import water
from tiny_models import assert_close

from mace_scf_jax import load_model
from mace_scf_jax_cli.main import main

CONFIG = {
    "name": "water",
    "train_file": "train.xyz",
    "valid_fraction": 0.34,
    "E0s": "average",
    "backbone": "chebyshev",
    "descriptor": {"rad_order": 2, "rad_cutoff": 3.0, "ang_order": 1, "ang_cutoff": 2.5},
    "arch": [[3, "tanh"]],
    "atomic_multipoles_max_l": 0,
    "atomic_multipoles_smearing_width": 1.0,
    "batch_size": 2,
    "valid_batch_size": 2,
    "optimizer": "adam",
    "heads": {
        "DFT": {
            "info_keys": {"energy": "REF_energy", "total_charge": "total_charge"},
            "arrays_keys": {"forces": "REF_forces", "atomic_multipoles": "REF_atomic_multipoles"},
        }
    },
    "train_schedule": {
        0: {
            "name": "all",
            "start": 0,
            "end": 1,
            "lr": 0.01,
            "loss": {"forces": 1.0, "atomic_multipoles": 1.0},
        }
    },
}
WITHOUT_CHARGES = {
    "heads": {
        "DFT": {"info_keys": {"energy": "REF_energy"}, "arrays_keys": {"forces": "REF_forces"}}
    },
    "train_schedule": {
        0: {"name": "all", "start": 0, "end": 1, "lr": 0.01, "loss": {"forces": 1.0}}
    },
}
"""No labels that would have to be of the degrees of the model."""
FORMAL = {"H": 0.4, "O": -0.8}
FAMILIES = {
    "none": {"model": "LocalCharges", "conserve_charge": "none"},
    "uniform": {"model": "LocalCharges", "conserve_charge": "uniform"},
    "learned": {"model": "LocalCharges", "conserve_charge": "learned"},
    "fixed": {"model": "FixedChargeBaselinedMACE", "atomic_formal_charges": FORMAL},
    "qeq": {"model": "MACEQEq", "default_hardness": 10.0},
}


def quick(*chosen):
    """The others are trained in the slow part of the tests."""
    return [
        name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
    ]


def structures():
    found = []
    for index in range(6):
        atoms = water(index)
        charges = np.array([[-0.8], [0.4], [0.4]])
        atoms.arrays["REF_atomic_multipoles"] = charges + 0.01 * index * np.array([[-2], [1], [1]])
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charged")
    write(folder / "train.xyz", structures(), format="extxyz")
    return folder


def run(folder, own, patch, changes, *words):
    own.mkdir()
    (own / "train.xyz").symlink_to(folder / "train.xyz")
    (own / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    patch.chdir(own)
    return main(["train", "config.yaml", *words])


def losses(own):
    (results,) = (own / "results").glob("*train.txt")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line.get("mode") == "opt"])


@pytest.mark.parametrize("family", quick("learned", "qeq"))
def test_trained_models_have_forces_and_stress_that_are_derivatives(family, folder, monkeypatch):
    own = folder / family
    assert run(folder, own, monkeypatch, FAMILIES[family]) == 0
    assert len(losses(own)) == 4
    assert np.all(np.isfinite(losses(own)))
    model = load_model(own / "water_all.model.safetensors")
    assert model.settings.family == FAMILIES[family]["model"]
    assert model.settings.backbone.name == "chebyshev"

    atoms = water(3)
    atoms.set_cell([[4.0, 0.0, 0.3], [0.2, 4.1, 0.0], [0.0, 0.4, 4.2]])
    atoms.pbc = True
    atoms.rattle(0.05, seed=1)
    step, axes = 1e-3, np.eye(3)
    moved = []
    for sign in (1, -1):
        for way in (1, 2):
            along = atoms.copy()
            along.positions[1] += sign * way * step * axes[1]
            strained = atoms.copy()
            strained.set_cell(
                atoms.cell @ (np.eye(3) + sign * way * step * np.outer(axes[0], axes[0])),
                scale_atoms=True,
            )
            moved += [along, strained]
    found = model.predict([atoms, *moved], stress=True)
    energies = np.array([float(each["energy"]) for each in found[1:]]).reshape(2, 2, 2)
    first, second = (energies[0] - energies[1]) / step  # steps of one and two, by what is moved
    slopes = (8.0 * first - second) / 12.0
    assert_close(found[0]["forces"][1, 1], -slopes[0], 1e-6)
    assert_close(found[0]["stress"][0, 0] * atoms.get_volume(), slopes[1], 1e-6)
    if family != "none":
        assert found[0]["total_charge"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("family", ["none", pytest.param("qeq", marks=pytest.mark.slow)])
def test_features_computed_before_change_no_loss(family, folder, monkeypatch):
    found = {}
    for word in ("true", "false"):
        own = folder / f"{family}-{word}"
        changes = FAMILIES[family] | {"cache_features": word}
        assert run(folder, own, monkeypatch, changes) == 0
        found[word] = losses(own)
    np.testing.assert_allclose(found["true"], found["false"], rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            FAMILIES["none"] | WITHOUT_CHARGES | {"atomic_multipoles_max_l": 1},
            "LocalCharges needs a backbone with",
        ),
        (FAMILIES["learned"] | {"cache_features": "true"}, "a model that reads edges"),
        ({"model": "EnergyFunctional"}, "EnergyFunctional needs a backbone with"),
        ({"model": "FixedPoint"}, "FixedPoint needs a backbone with"),
        (
            {"model": "LocalSplitCharges", "atomic_formal_charges": FORMAL},
            "LocalSplitCharges needs a backbone with",
        ),
    ],
)
def test_what_needs_more_than_invariant_features_is_refused(
    folder, tmp_path, monkeypatch, capsys, changes, message
):
    assert run(folder, tmp_path / "own", monkeypatch, changes, "--dry_run") != 0
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
