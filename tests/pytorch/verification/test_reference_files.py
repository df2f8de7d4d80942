"""Every reference file is recomputed; files with a fault are noticed."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from reference_models import REFERENCE

from mace_scf_jax.pytorch.verification import ReferenceFileError, verify
from mace_scf_jax.pytorch.verification.blocks import UnknownBlockError
from mace_scf_jax.pytorch.verification.reference_file import deviation, read_reference_file
from mace_scf_jax.pytorch.verification.training import verify_training

FILES = sorted(
    path
    for folder in ("blocks", "descriptor", "electrostatics", "foundation", "models", "trained")
    for path in (REFERENCE / folder).glob("*.npz")
)
QUICK = {
    "mace",
    "local_charges",
    "local_charges_l0_realspace_cluster",
    "fixed_charge_baseline",
    "split_charges_default",
    "qeq_default",
    "water",
    "three_species",
    "exported",
    "training_forces",
    "reference_energies",
    "interaction_nonlinear",
    "interaction_nonlinear_first",
    "interaction_edge_irreps_density_residual",
    "product_agnostic",
    "readouts_with_bias",
    "joint_embedding",
    "multihead_nonlinear_mh",
    "maceles",
    "polar_small_monopoles",
}
"""One model of each family that nothing is iterated for, one that is open; three descriptors; what
public models of MACE have."""

LINEAR = REFERENCE / "blocks" / "linear.npz"

NOT_COMPARED = {
    "external_potential_and_field",
    "feature_cotangent",
    "num_k_half_space",
    "node_feats",
    "stress_of_mace_0_3_16",
}
"""Outputs of electrostatics files that are inputs of others, or the work that was done; features of
the layers, whose components mace-torch 0.3.16 rotates before it returns them; its stress of
PolarMACE, which is no derivative by strain."""


def compared_outputs(path: Path) -> set[str]:
    with np.load(path) as file:
        names = {
            name[4:]
            for name in file.files
            if name.startswith(("out/", "out_")) and not np.isnan(file[name]).all()
        }
    return names - NOT_COMPARED


def changed(source: Path, target: Path, **changes) -> Path:
    """A copy of a reference file with some arrays replaced, by name with / written as __."""
    with np.load(source) as file:
        arrays = dict(file)
    arrays.update({name.replace("__", "/"): value for name, value in changes.items()})
    np.savez(target, **arrays)
    return target


def case(path: Path):
    """A file as a parameter; most models are slow proofs."""
    quick = path.parent.name in ("blocks", "electrostatics") or path.stem in QUICK
    marks = () if quick else (pytest.mark.slow,)
    return pytest.param(path, marks=marks, id=f"{path.parent.name}/{path.stem}")


@pytest.mark.parametrize("path", [case(path) for path in FILES])
def test_recomputed(path):
    deviations = verify(path)
    assert {entry.output for entry in deviations} >= compared_outputs(path)
    assert not [entry for entry in deviations if not entry.passed]


def test_one_step_of_a_fixed_point_model(tmp_path):
    """Its cycles are slow proofs."""
    with np.load(REFERENCE / "models" / "fixed_point_default.npz") as file:
        arrays = {name: array for name, array in file.items() if "/constant_" not in name}
    np.savez(tmp_path / "one_step.npz", **arrays)
    deviations = verify(tmp_path / "one_step.npz")
    assert {entry.output for entry in deviations} >= compared_outputs(tmp_path / "one_step.npz")
    assert not [entry for entry in deviations if not entry.passed]


@pytest.mark.slow
def test_a_training_step():
    """What an earlier step has left in the gradients is taken from the file of another mode."""
    path = REFERENCE / "training_steps" / "unroll_scf_constant_charge.npz"
    with np.load(REFERENCE / "training" / "left_over_gradients.npz") as left_over:
        deviations = verify_training(read_reference_file(path), left_over=dict(left_over))
    assert {entry.output for entry in deviations} >= compared_outputs(path)
    assert not [entry for entry in deviations if not entry.passed]


def test_recomputed_with_the_optimisations_that_users_have():
    """All other tests switch them off to compile faster."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        deviations = verify(REFERENCE / "models" / "local_charges_l0_realspace_cluster.npz")
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    assert all(entry.passed for entry in deviations)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("blocks/linear", "state/weight"),
        ("blocks/spherical_harmonics", "in/vectors"),
        ("descriptor/reference_energies", "in/energies"),
        ("electrostatics/realspace_l0", "in_multipoles"),
        ("models/local_charges_l0_realspace_cluster", "state/lr_source_maps.1.linear.weight"),
    ],
)
def test_one_wrong_number_is_noticed(tmp_path, name, array):
    source = REFERENCE / f"{name}.npz"
    with np.load(source) as file:
        values = file[array].copy()
    values.flat[0] *= 1.0 + 1e-3
    path = changed(source, tmp_path / "wrong.npz", **{array.replace("/", "__"): values})
    assert [entry for entry in verify(path) if not entry.passed]


def test_a_missing_file(tmp_path):
    with pytest.raises(ReferenceFileError, match=r"none\.npz: no such file"):
        verify(tmp_path / "none.npz")


@pytest.mark.parametrize("length", [0, 10, 2000])
def test_a_truncated_file(tmp_path, length):
    path = tmp_path / "short.npz"
    path.write_bytes(LINEAR.read_bytes()[:length])
    with pytest.raises(ReferenceFileError, match=r"short\.npz: not a readable \.npz file"):
        verify(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file(tmp_path, save):
    path = tmp_path / "damaged.npz"
    save(path, **{"out/x": np.random.default_rng(0).normal(size=1000)})
    content = bytearray(path.read_bytes())
    content[4000:4010] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(ReferenceFileError, match="not a readable"):
        verify(path)


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("no archive at all, just some words\n")
    with pytest.raises(ReferenceFileError, match="not a readable"):
        verify(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ReferenceFileError, match="not a readable"):
        verify(tmp_path / "array.npy")


def test_an_archive_without_metadata_or_outputs(tmp_path):
    np.savez(tmp_path / "bare.npz", x=np.zeros(2))
    with pytest.raises(ReferenceFileError, match=r"expected a JSON string 'meta', found \['x'\]"):
        verify(tmp_path / "bare.npz")
    np.savez(tmp_path / "odd.npz", meta="{not json")
    with pytest.raises(ReferenceFileError, match="'meta' is not JSON"):
        verify(tmp_path / "odd.npz")
    np.savez(tmp_path / "inputs.npz", meta="{}", **{"in/x": np.zeros(2)})
    with pytest.raises(ReferenceFileError, match="expected arrays 'out/…'"):
        verify(tmp_path / "inputs.npz")


def test_layers_and_models_that_we_do_not_have(tmp_path):
    layer = changed(LINEAR, tmp_path / "layer.npz", meta=json.dumps({"dropout": 0.5}))
    with pytest.raises(UnknownBlockError, match=r"no known layer has the metadata \['dropout'\]"):
        verify(layer)
    lacking = changed(LINEAR, tmp_path / "lacking.npz", meta=json.dumps({"model": "MACE"}))
    with pytest.raises(ReferenceFileError, match=r"lacking\.npz: .*found no entry 'options'"):
        verify(lacking)
    meta = {"model": "GPT", "options": {}, "backbone": {}}
    model = changed(LINEAR, tmp_path / "model.npz", meta=json.dumps(meta))
    with pytest.raises(ValueError, match=r"model: expected one of MACE, .*, found 'GPT'"):
        verify(model)


def test_deviations_are_judged_by_the_largest_number():
    expected = np.array([1.0, -100.0])
    entry = deviation("x", np.array([1.0 + 5e-8, -100.0]), expected, tolerance=1e-9)
    assert entry.passed
    np.testing.assert_allclose([entry.absolute, entry.relative], [5e-8, 5e-10], rtol=1e-6)
    assert not deviation("x", expected + 2e-7, expected, tolerance=1e-9).passed


def test_nan_never_passes():
    expected = np.array([1.0, 2.0])
    assert not deviation("x", np.array([np.nan, 2.0]), expected, tolerance=1e-9).passed
    assert not deviation("x", expected, np.array([1.0, np.nan]), tolerance=1e-9).passed


def test_zeros_are_compared_absolutely():
    zeros = np.zeros(3)
    assert deviation("x", zeros + 1e-13, zeros, tolerance=1e-9).passed
    assert not deviation("x", zeros + 1e-9, zeros, tolerance=1e-9).passed
    assert deviation("x", np.zeros((0, 3)), np.zeros((0, 3)), tolerance=1e-9).passed


def test_shapes_have_to_agree():
    with pytest.raises(ValueError, match=r"x: expected shape \(2,\), computed \(3,\)"):
        deviation("x", np.zeros(3), np.zeros(2), tolerance=1e-9)
