"""Models of several heads: energies by the head of each structure, and the model of one."""

from __future__ import annotations

import dataclasses

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_models import REFERENCE

from mace_scf_jax.predict.model import Model
from mace_scf_jax.pytorch import export_torch_model
from mace_scf_jax.pytorch.configuration import TorchConfigurationError, settings_from_configuration
from mace_scf_jax.pytorch.heads import heads_of, with_head
from mace_scf_jax.pytorch.module import TorchModel
from mace_scf_jax.pytorch.verification.models import reference_graph
from mace_scf_jax.pytorch.verification.reference_file import ReferenceFile, read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters

FILES = ("multihead_density", "backbone_options")
"""Classic interactions with linear and nonlinear readouts; biased readouts, embedding readout."""


def whole_model(file: ReferenceFile) -> Model:
    """All heads of a reference file in one model."""
    source = TorchModel(file.meta, file.state)
    names = heads_of(source)
    single = [settings_from_configuration(with_head(source, it).configuration) for it in names]
    settings = dataclasses.replace(
        single[0],
        backbone=dataclasses.replace(single[0].backbone, heads=names),
        atomic_energies=tuple(each.atomic_energies for each in single),
        own=dataclasses.replace(
            single[0].own,
            scale=tuple(each.own.scale for each in single),
            shift=tuple(each.own.shift for each in single),
        ),
    )
    return Model(settings, import_parameters(file.state, settings))


@pytest.mark.parametrize("name", FILES)
def test_a_batch_of_several_heads_has_the_energies_of_the_reference(name):
    file = read_reference_file(REFERENCE / "foundation" / f"{name}.npz")
    model = whole_model(file)
    graph = reference_graph(file, model.settings)
    head = np.zeros(graph.num_graphs, np.int32)
    head[: len(file.inputs["head"])] = file.inputs["head"]
    assert len(set(file.inputs["head"])) > 1
    found = model.evaluate(model.parameters, graph.replace(head=jnp.asarray(head)))
    energies = np.asarray(found["energy"])[: len(file.inputs["head"])]
    np.testing.assert_allclose(energies, file.outputs["energy"], rtol=1e-12)
    forces = np.asarray(found["forces"])[: len(file.outputs["forces"])]
    np.testing.assert_allclose(forces, file.outputs["forces"], atol=1e-12)
    with pytest.raises(ValueError, match="structures that name none for a model of several heads"):
        model.evaluate(model.parameters, graph)


def test_the_model_of_one_head_is_like_any_other(tmp_path):
    file = read_reference_file(REFERENCE / "foundation" / "backbone_options.npz")
    model = whole_model(file)
    model.save(tmp_path / "whole.model.safetensors")
    for name in model.settings.heads:
        one = Model(model.settings, model.parameters).of_head(name)
        source = with_head(TorchModel(file.meta, file.state), name)
        assert one.settings == settings_from_configuration(source.configuration)
        expected = import_parameters(source.state, one.settings)
        jax.tree.map(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-14),
            one.parameters,
            expected,
        )
    with pytest.raises(
        ValueError, match=r"head: expected one of a, b, found 'aa'; did you mean 'a'"
    ):
        model.using(head="aa")
    with pytest.raises(TorchConfigurationError, match="heads: expected a model of one, found a, b"):
        export_torch_model(model)


def test_structures_name_their_head_or_the_model_is_that_of_one():
    file = read_reference_file(REFERENCE / "foundation" / "multihead_density.npz")
    model = whole_model(file)
    names = model.settings.heads
    blocks = {name: {"info_keys": {}, "arrays_keys": {}} for name in names}
    model = dataclasses.replace(model, record={"heads": blocks})
    atoms = ase.Atoms(model.settings.elements[:2], [[0, 0, 0], [0, 0, 1.1]])
    named = [atoms.copy() for _ in names]
    for each, name in zip(named, names, strict=True):
        each.info["head"] = name
    energies = [entry["energy"] for entry in model.predict(named)]
    assert len({round(float(energy), 6) for energy in energies}) == len(names)
    for name, energy in zip(names, energies, strict=True):
        (found,) = model.using(head=name).predict([atoms])
        assert found["energy"] == pytest.approx(float(energy), rel=1e-13)
    with pytest.raises(ValueError, match=r"names no head .*--head NAME"):
        model.predict([atoms])
    atoms.info["head"] = "none"
    with pytest.raises(ValueError, match=r"head: expected one of .*, found 'none'"):
        model.predict([atoms])
