"""Whole models from the PyTorch packages: import, and export with and without a template."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import mace_scf_jax
from mace_scf_jax.pytorch import TemplateError, export_torch_model, import_model
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.files import read_torch_model

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
FILES = sorted((REFERENCE / "models").glob("*.npz"))
FILES += sorted((REFERENCE / "foundation").glob("polar_*.npz"))
QUICK = {"scale_shift_mace", "local_charges", "split_charges_default", "qeq_default"}
QUICK |= {"fixed_point_default", "fixed_charge_baseline", "polar_small_monopoles"}
"""One of each family."""
MACE = REFERENCE / "models" / "scale_shift_mace.npz"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in FILES
    ],
)
def test_a_model_file_gives_back_every_array(path, tmp_path):
    """Weights, and buffers with constants, after import, saving, loading and export."""
    imported = import_model(path)
    imported.save(tmp_path / "imported.model")
    loaded = mace_scf_jax.load_model(tmp_path / "imported.model")
    assert loaded.settings == imported.settings
    source = read_torch_model(path)
    exported = export_torch_model(loaded, template=source)
    assert exported.configuration == source.configuration
    assert exported.state.keys() == source.state.keys()
    for name, values in source.state.items():
        np.testing.assert_array_equal(exported.state[name], values, strict=True, err_msg=name)
    without_template = export_torch_model(loaded)
    again = import_model(without_template)
    assert again.settings == imported.settings
    jax.tree.map(np.testing.assert_array_equal, again.parameters, imported.parameters)


def test_the_record_tells_where_a_model_came_from():
    record = import_model(MACE).record
    assert record["imported_from"] == "scale_shift_mace.npz"
    assert record["pytorch_configuration"] == read_torch_model(MACE).configuration
    assert record["version"] == mace_scf_jax.__version__


def test_single_precision():
    model = import_model(MACE, dtype=np.float32)
    assert model.dtype == np.float32
    exported = export_torch_model(model, template=read_torch_model(MACE))
    name = "interactions.0.linear_up.weight"
    assert exported.state[name].dtype == np.float64
    expected = read_torch_model(MACE).state[name].astype(np.float32)
    np.testing.assert_array_equal(exported.state[name], expected.astype(np.float64))


def test_options_that_the_source_does_not_tell():
    source = read_torch_model(REFERENCE / "models" / "local_charges.npz")
    options = dict(source.configuration["options"])
    del options["pbc_handling"]
    incomplete = dataclasses.replace(
        source, configuration=source.configuration | {"options": options}
    )
    with pytest.raises(TorchConfigurationError, match="found no entry 'pbc_handling'"):
        import_model(incomplete)
    model = import_model(incomplete, options={"pbc_handling": "slab"})
    assert model.settings.electrostatics.boundary == "slab"


def test_changed_weights_and_constants_replace_those_of_the_template():
    model, source = import_model(MACE), read_torch_model(MACE)
    own = dataclasses.replace(model.settings.own, scale=2.0)
    changed = dataclasses.replace(
        model,
        settings=dataclasses.replace(model.settings, own=own, atomic_energies=(1.0, 2.0, 3.0)),
        parameters=jax.tree.map(lambda values: 2.0 * values, model.parameters),
    )
    state = export_torch_model(changed, template=source).state
    assert state["scale_shift.scale"] == 2.0
    np.testing.assert_array_equal(
        state["atomic_energies_fn.atomic_energies"], [[1.0, 2.0, 3.0]], strict=True
    )
    name = "readouts.1.linear_2.weight"
    np.testing.assert_array_equal(state[name], 2.0 * source.state[name])
    name = "products.0.symmetric_contractions.contractions.0.U_matrix_2"
    np.testing.assert_array_equal(state[name], source.state[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r_max": np.array(5.0)}, "r_max is 5.0, expected 4.5"),
        ({"scale_shift.scale": None}, "found no 'scale_shift.scale'"),
        ({"node_embedding.linear.weight": np.zeros(5)}, r"has the shape \(5,\), expected \(18,\)"),
    ],
)
def test_a_template_of_another_model(changes, message):
    source = read_torch_model(MACE)
    state = {**source.state, **changes}
    template = dataclasses.replace(
        source, state={name: values for name, values in state.items() if values is not None}
    )
    with pytest.raises(TemplateError, match=message):
        export_torch_model(import_model(MACE), template=template)
