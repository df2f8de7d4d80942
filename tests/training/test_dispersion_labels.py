"""What training with dispersion learns, and from which models it starts."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import Bohr, Hartree
from dftd3 import interface
from start_models import options, write_start
from tiny_models import periodic

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.keys import specification
from mace_scf_jax.dispersion import DispersionSettings
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.predict.model import load_model
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.preprocessing import PreprocessOptions
from mace_scf_jax.training.dispersion import without_dispersion
from mace_scf_jax.training.settings import preprocess_settings
from mace_scf_jax.training.start.start_model import StartModel

ELEMENTS = (1, 8)
PBE = {"dispersion": "d3bj", "dispersion_functional": "pbe", "dispersion_cutoff": 12.0}


def test_labels_lack_what_the_package_computes():
    atoms = periodic()
    atoms.wrap()
    atoms.info.update(E=3.0, S=np.zeros(9))
    atoms.arrays["F"] = np.ones((len(atoms), 3))
    keys = specification({"energy": "E", "forces": "F", "stress": "S"})
    settings = DispersionSettings.of("d3bj", "pbe", ELEMENTS, cutoff=12.0)
    (found,) = without_dispersion([from_atoms(atoms, keys=keys)], settings, ELEMENTS)
    model = interface.DispersionModel(
        atoms.numbers, atoms.positions / Bohr, atoms.cell[:] / Bohr, atoms.pbc
    )
    model.set_realspace_cutoff(*[12.0 / Bohr] * 3)
    theirs = model.get_dispersion(interface.RationalDampingParam(method="pbe"), grad=True)
    stress = Hartree * theirs["virial"] / atoms.get_volume()
    assert found.values["energy"] == pytest.approx(3.0 - Hartree * theirs["energy"], abs=1e-9)
    forces = 1.0 + Hartree / Bohr * theirs["gradient"]
    np.testing.assert_allclose(found.values["forces"], forces, atol=1e-9)
    np.testing.assert_allclose(found.values["stress"], -stress, atol=1e-9)
    assert "virials" not in found.present


def test_the_dispersion_of_a_start_model_is_that_of_the_new_one(tmp_path):
    write_start(tmp_path)
    path = tmp_path / "start.model.safetensors"
    load_model(path, **PBE).save(path)
    chosen = TrainOptions(**options(tmp_path))
    assert {name: getattr(chosen, name) for name in PBE} == PBE
    start = StartModel.of(chosen)
    assert start.for_elements(ELEMENTS).dispersion is None
    with pytest.raises(ConfigurationError, match="the start model has pbe, found rpbe"):
        TrainOptions(**options(tmp_path, dispersion_functional="rpbe"))


def test_preprocessing_leaves_labels_as_they_are(tmp_path):
    write_start(tmp_path)
    given = {name: it for name, it in options(tmp_path).items() if name != "start_from"}
    with pytest.raises(ConfigurationError, match="is taken off labels when a run reads files"):
        preprocess_settings(PreprocessOptions(**given, **PBE), workers=1, shard_megabytes=1.0)
