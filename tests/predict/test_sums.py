"""Models with electrostatic sums on a mesh and over wavevectors; the choice between them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_models import assert_close, molecule, periodic, slab, tiny_model

import mace_scf_jax
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.electrostatics import ElectrostaticsSettingsError, MeshError
from mace_scf_jax.electrostatics.mesh_choice import MESH_PAYS_ABOVE
from mace_scf_jax.mesh import Mesh
from mace_scf_jax.models import SelfConsistency
from mace_scf_jax.scf import Dense

ACCURACY = 1e-5
FAMILIES = [
    "LocalCharges",
    pytest.param("MACEQEq", marks=pytest.mark.slow),
    pytest.param("EnergyFunctional", marks=pytest.mark.slow),
    pytest.param("FixedPoint", marks=pytest.mark.slow),
]


def converged_in_k(family: str):
    """A model whose direct sums go so far in k that they are exact in comparison."""
    scf = SelfConsistency(Dense(tolerance=1e-11)) if family == "FixedPoint" else None
    model = tiny_model(family, scf=scf)
    electrostatics = dataclasses.replace(model.settings.electrostatics, kspace_cutoff_factor=2.5)
    settings = dataclasses.replace(model.settings, electrostatics=electrostatics)
    return dataclasses.replace(model, settings=settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_on_a_mesh_equal_direct_ones_within_the_accuracy_asked_for(family):
    """A crystal, a slab and a molecule in one batch, which shares one grid."""
    direct = converged_in_k(family)
    mesh = direct.with_sums("mesh", mesh_accuracy=ACCURACY)
    structures = [periodic(), slab(), molecule(box=12.0)]
    expected = direct.predict(structures, stress=True)
    found = mesh.predict(structures, stress=True)
    names = {"electrostatic_energy", "forces", "stress", "multipoles"}
    names |= {"field_features", "electrostatic_potentials"} & expected[0].keys()
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in names & other.keys():  # a molecule has no stress
            assert_close(one[name], other[name], 2.0 * ACCURACY, name)
        scale = np.abs(other["electrostatic_energy"])
        assert abs(one["energy"] - other["energy"]) <= 2.0 * ACCURACY * scale
    assert any(np.any(a["forces"] != b["forces"]) for a, b in zip(found, expected, strict=True))


def test_a_state_on_a_mesh_equals_the_direct_one_within_the_accuracy_asked_for():
    """The self-consistent family, without what is derived from its energy."""
    direct = converged_in_k("FixedPoint")
    structures = [periodic(), slab(), molecule(box=12.0)]
    expected = direct.predict(structures, forces=False)
    found = direct.with_sums("mesh", mesh_accuracy=ACCURACY).predict(structures, forces=False)
    names = ("electrostatic_energy", "multipoles", "field_features", "electrostatic_potentials")
    for one, other in zip(found, expected, strict=True):
        for name in names:
            assert_close(one[name], other[name], 2.0 * ACCURACY, name)
        assert np.any(one["multipoles"] != other["multipoles"])


def test_structures_of_a_mesh_need_no_wavevectors_and_share_a_grid():
    model = tiny_model().with_sums("mesh")
    structures = [model.prepare(from_atoms(atoms)) for atoms in (periodic(), slab())]
    assert [entry.num_kvectors for entry in structures] == [0, 0]
    ((_, graph),) = model.batches(structures)
    assert isinstance(graph.mesh, Mesh)
    for entry in structures:
        assert all(np.subtract(graph.mesh.shape, entry.mesh.shape) >= 0)


def test_auto_decides_by_size():
    model = tiny_model().with_sums("auto")
    small, large = periodic(), periodic() * (6, 6, 6)
    assert len(small) <= MESH_PAYS_ABOVE < len(large)
    assert model.prepare(from_atoms(small)).mesh is None
    assert model.prepare(from_atoms(large)).mesh is not None


def test_the_way_of_a_file_is_kept_unless_another_is_asked_for(tmp_path):
    path = tmp_path / "a.model"
    tiny_model().with_sums("mesh", mesh_accuracy=1e-4).save(path)
    electrostatics = mace_scf_jax.load_model(path).settings.electrostatics
    assert (electrostatics.sums, electrostatics.mesh_accuracy) == ("mesh", 1e-4)
    direct = mace_scf_jax.load_model(path, sums="direct")
    assert direct.settings.electrostatics.sums == "direct"
    assert tiny_model().with_sums(None) is tiny_model()


def test_what_cannot_be_summed_so_is_refused():
    with pytest.raises(ValueError, match="family MACE"):
        tiny_model("MACE").with_sums("mesh")
    with pytest.raises(ElectrostaticsSettingsError, match="direct, mesh, auto"):
        tiny_model().with_sums("ewald")
    model = tiny_model().with_sums("mesh", mesh_accuracy=1e-14)
    with pytest.raises(MeshError, match="mesh_accuracy"):
        model.predict(periodic())
    model = tiny_model()
    electrostatics = dataclasses.replace(model.settings.electrostatics, boundary="realspace")
    settings = dataclasses.replace(model.settings, electrostatics=electrostatics)
    model = dataclasses.replace(model, settings=settings)
    with pytest.raises(MeshError, match="open boundary is summed over pairs"):
        model.with_sums("mesh").predict(molecule())
    assert model.with_sums("auto").prepare(from_atoms(molecule())).mesh is None
