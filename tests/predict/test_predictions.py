"""Loading a model and predicting structures."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
from tiny_models import (
    assert_all_close,
    assert_close,
    molecule,
    periodic,
    random_rotation,
    slab,
)

import mace_scf_jax
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.electrostatics import BoundaryError
from mace_scf_jax.models.model_file import ModelFileError
from mace_scf_jax.pytorch.verification.models import reference_settings
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.simulate import Model

TRAINED = (
    Path(__file__).parents[1] / "data" / "reference" / "trained" / "local_charges_water_ions.npz"
)


def test_predictions_of_a_trained_model_equal_the_reference(tmp_path):
    """From structures alone: neighbours, cells and batches are our own."""
    file = read_reference_file(TRAINED)
    settings = reference_settings(file.meta)
    Model(settings, import_parameters(file.state, settings)).save(tmp_path / "trained.model")
    inputs, owner = file.inputs, file.inputs["batch"]
    numbers = np.asarray(settings.elements)[np.argmax(inputs["node_attrs"], axis=1)]
    structures = [
        ase.Atoms(
            numbers=numbers[owner == index],
            positions=inputs["positions"][owner == index],
            cell=inputs["cell"][index],
            pbc=inputs["pbc"][index],
            info={"external_field": inputs["external_field"][index]},
        )
        for index in range(8)
    ]
    assert len({len(atoms) for atoms in structures}) > 3
    predictions = mace_scf_jax.load_model(tmp_path / "trained.model").predict(structures)
    for index, prediction in enumerate(predictions):
        own = owner == index
        assert_close(prediction["energy"], file.outputs["energy"][index], 1e-12)
        assert_close(prediction["forces"], file.outputs["forces"][own], 1e-9)
        assert_close(prediction["multipoles"], file.outputs["density_coefficients"][own], 1e-9)
        assert_close(prediction["dipole"], file.outputs["dipole"][index], 1e-9)


def test_a_list_keeps_its_order_and_equals_single_predictions(model):
    structures = [slab(), molecule(1), periodic(), molecule(2)[:2], molecule(3)]
    together = model.predict(structures, stress=True)
    in_pairs = model.predict(structures, stress=True, batch_size=2)
    assert [len(prediction["forces"]) for prediction in together] == [5, 5, 5, 2, 5]
    for one, other in zip(together, in_pairs, strict=True):
        assert_all_close(other, one, 1e-11)
    assert_all_close(model.predict(structures[3], stress=True), together[3], 1e-11)


def test_forces_and_stress_only_when_asked_for(model):
    bare = model.predict(molecule(), forces=False)
    assert not {"forces", "stress", "virials"} & set(bare)
    assert {"energy", "multipoles", "dipole", "total_charge", "node_energy"} <= set(bare)
    assert model.predict([], forces=False) == []


def test_a_rotated_structure_has_rotated_forces(model):
    rotation = random_rotation(7)
    atoms = periodic()
    turned = atoms.copy()
    turned.set_cell(atoms.cell @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    straight, rotated = model.predict([atoms, turned], stress=True)
    assert_close(rotated["energy"], straight["energy"], 1e-12)
    assert_close(rotated["forces"], straight["forces"] @ rotation.T, 1e-10)
    assert_close(rotated["stress"], rotation @ straight["stress"] @ rotation.T, 1e-10)


def test_wrapping_and_cell_choice_change_nothing(model):
    atoms = periodic()
    wrapped = atoms.copy()
    wrapped.positions[1] += atoms.cell[0] - 2 * atoms.cell[2]
    sheared = atoms.copy()
    sheared.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ atoms.cell)
    same, moved, other = model.predict([atoms, wrapped, sheared], stress=True)
    for name in ("energy", "forces", "multipoles"):
        assert_close(moved[name], same[name], 1e-10, name)
        assert_close(other[name], same[name], 1e-10, name)
    assert_close(other["stress"], same["stress"], 1e-10)


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "tiny.model")
    loaded = mace_scf_jax.load_model(tmp_path / "tiny.model")
    assert loaded.settings == model.settings
    assert loaded.dtype == np.float64
    expected = model.predict(molecule(), forces=False)
    for name, value in loaded.predict(molecule(), forces=False).items():
        np.testing.assert_array_equal(value, expected[name])


def test_errors_name_the_structure(model):
    gold = molecule()
    gold.symbols[1] = "Au"
    with pytest.raises(DataError, match=r"structure 1: found element Au, .* which knows H, O"):
        model.predict([molecule(), gold])
    wire = periodic()
    wire.pbc = (True, False, False)
    with pytest.raises(BoundaryError, match="structure 2: found pbc TFF, incompatible"):
        model.predict([molecule(), molecule(), wire])
    tilted = slab()
    tilted.cell[0, 2] = 1.0
    with pytest.raises(BoundaryError, match=r"structure 0: found a slab .* 1 and 0 Å"):
        model.predict(tilted)
    twins = molecule()
    twins.positions[1] = twins.positions[0]
    with pytest.raises(DataError, match="structure 0: found atoms 0 and 1 at the same position"):
        model.predict(twins)


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "not.model"
    path.write_text("hello")
    with pytest.raises(ModelFileError, match=r"not\.model: not a complete model file"):
        mace_scf_jax.load_model(path)
    with pytest.raises(ModelFileError, match=r"train\.xyz: a file of structures, no model file"):
        mace_scf_jax.load_model(tmp_path / "train.xyz")
