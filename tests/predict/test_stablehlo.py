"""Exported functions: the numbers of the model, in a process that lacks the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference_models import TRAINED, reference_atoms, reference_model
from tiny_models import assert_close, molecule, periodic, tiny_model

from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.models import OUTPUTS, DirectStep, SelfConsistency
from mace_scf_jax.predict.stablehlo import export_stablehlo
from mace_scf_jax.pytorch import import_model
from mace_scf_jax.scf import Dense
from mace_scf_jax.simulate import Model

MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"
STEP = 1e-4
FINITE_DIFFERENCE = 1e-6
"""Relative error allowed for central differences with STEP (Å)."""

WITHOUT_THE_PACKAGE = """
import json, sys
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

def load(path):
    file = np.load(path)
    inputs = {name[6:]: file[name] for name in file.files if name.startswith("input/")}
    return jax.export.deserialize(bytearray(file["function"])).call, inputs

predict, inputs = load(sys.argv[1])
outputs = predict(**inputs)
solve, given = load(sys.argv[3])
lowered = solve(**given | {"fermi_level": given["fermi_level"] - 0.1})
energies = []
for sign in (1, -1):
    moved = {**inputs, "positions": inputs["positions"].copy()}
    moved["positions"][1, 2] += sign * float(sys.argv[2])
    energies.append(float(predict(**moved)["energy"]))
edges = int(inputs["num_edges"])
order = np.r_[np.arange(edges)[::-1], np.arange(edges, len(inputs["senders"]))]
edge_arrays = ("senders", "receivers", "cell_shifts")
shuffled = predict(**inputs | {name: inputs[name][order] for name in edge_arrays})
print(json.dumps({
    "outputs": {name: np.asarray(values).tolist() for name, values in outputs.items()},
    "solved": {name: np.asarray(values).tolist() for name, values in solve(**given).items()},
    "lowered": float(lowered["total_charge"]),
    "energies": energies,
    "shuffled": np.asarray(shuffled["forces"]).tolist(),
    "package": [name for name in sys.modules if name.startswith(("mace_scf", "flax", "e3nn"))],
}))
"""


ELECTRODE = molecule()
ELECTRODE.info["fermi_level"] = -1.5
AT_CONSTANT_LEVEL = SelfConsistency(Dense(tolerance=1e-10), constant_charge=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Prediction of the model, and what a process without the package makes of the file."""
    model = import_model(MODELS / "local_charges_density_blocks.npz")
    atoms = periodic()
    structure = model.prepare(from_atoms(atoms))
    function = export_stablehlo(model, structure, atoms=7, platforms=("cpu",))
    path = tmp_path_factory.mktemp("exported") / "model.npz"
    function.save(path)
    solved_for = tiny_model("FixedPoint", scf=AT_CONSTANT_LEVEL)
    prepared = solved_for.prepare(from_atoms(ELECTRODE))
    electrode_path = path.with_stem("electrode")
    export_stablehlo(solved_for, prepared, forces=False, platforms=("cpu",)).save(electrode_path)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            WITHOUT_THE_PACKAGE,
            str(path),
            str(STEP),
            str(electrode_path),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    return function.description, model.predict(atoms), json.loads(done.stdout)


def test_the_numbers_of_the_model_without_the_package(exported):
    description, prediction, found = exported
    assert found["package"] == []
    assert found["outputs"].keys() == prediction.keys() | {"dipole"} == {*description["outputs"]}
    assert np.isnan(found["outputs"]["dipole"]).all()  # there is a period in all directions
    for name, expected in prediction.items():
        values = np.asarray(found["outputs"][name])
        values = values[: len(expected)] if np.ndim(expected) else values
        assert_close(values, expected, 1e-12, name)
    assert not np.any(np.asarray(found["outputs"]["forces"])[5:])


def test_a_self_consistent_model_keeps_its_fermi_level(exported):
    found = exported[2]
    model = tiny_model("FixedPoint", scf=AT_CONSTANT_LEVEL)
    expected = model.predict(ELECTRODE, forces=False)
    assert found["solved"].keys() - {"dipole"} == expected.keys() - {"dipole"}
    for name in ("energy", "fermi_level", "total_charge"):
        assert_close(found["solved"][name], expected[name], 1e-9, name)
    multipoles = np.asarray(found["solved"]["multipoles"])[: len(ELECTRODE)]
    assert_close(multipoles, expected["multipoles"], 1e-9)
    assert found["solved"]["scf_status"] == 0
    assert found["solved"]["fermi_level"] == ELECTRODE.info["fermi_level"]
    lower = ELECTRODE.copy()
    lower.info["fermi_level"] -= 0.1
    charge = model.predict(lower, forces=False)["total_charge"]
    assert_close(found["lowered"], charge, 1e-9)
    assert charge != expected["total_charge"]


def test_exported_forces_are_differences_of_exported_energies(exported):
    found = exported[2]
    up, down = found["energies"]
    forces = np.asarray(found["outputs"]["forces"])
    error = abs((down - up) / (2.0 * STEP) - forces[1, 2])
    assert error < FINITE_DIFFERENCE * np.max(np.abs(forces))


def test_the_order_of_edges_does_not_matter(exported):
    found = exported[2]
    assert_close(found["shuffled"], found["outputs"]["forces"], 1e-12)


def test_the_description(exported):
    description = exported[0]
    assert description["family"] == "LocalCharges"
    assert description["elements"] == [1, 8, 11]
    assert description["capacity"]["atoms"] == 7
    assert description["outputs"]["forces"] == [8, 3]
    assert {"positions", "cell_shifts", "external_field"} <= description["inputs"].keys()


def test_a_structure_of_one_atom_keeps_the_shapes_of_its_outputs():
    model = import_model(MODELS / "local_charges_density_blocks.npz")
    atom = periodic()[:1]
    atom.info["total_charge"] = 0.0
    function = export_stablehlo(model, model.prepare(from_atoms(atom)), platforms=("cpu",))
    found, expected = function.function.call(**function.inputs), model.predict(atom)
    assert found.keys() == expected.keys() | {"dipole"}
    for name, values in expected.items():
        if OUTPUTS[name].per_atom:
            assert found[name].shape == (2, *values.shape[1:]), name  # and one row of padding
            row = found[name][:1]
        else:
            assert found[name].shape == values.shape, name
            row = found[name]
        # not relative alone: there is no force on a single atom but for round-off
        np.testing.assert_allclose(row, values, rtol=1e-12, atol=1e-12, err_msg=name)


def test_capacities_that_do_not_hold_the_structure():
    model = import_model(MODELS / "mace.npz")
    structure = model.prepare(from_atoms(periodic()))
    with pytest.raises(ValueError, match=r"capacity for atoms: the structure has 5, .* found 3"):
        export_stablehlo(model, structure, atoms=3)
    with pytest.raises(ValueError, match="capacity for edges"):
        export_stablehlo(model, structure, edges=1)


@pytest.mark.parametrize("how", [DirectStep(), SelfConsistency(initial_density="from_data")])
def test_searches_that_start_from_reference_data(how):
    trained = reference_model(TRAINED)
    atoms = reference_atoms(TRAINED)[-1]
    structure = trained.prepare(from_atoms(atoms))
    with pytest.raises(ValueError, match="exported functions read no reference multipoles"):
        export_stablehlo(Model(trained.settings, trained.parameters, scf=how), structure)
