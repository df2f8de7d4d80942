"""Settings of fixed-point models from options and training set, and their first parameters."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from tiny_models import molecule, periodic, random_parameters, structure, tiny_settings
from train_options import STAGE, options

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.collate import collate
from mace_scf_jax.electrostatics import FieldFeatureSettings
from mace_scf_jax.models import FixedPointSettings, TrainingSet, build
from mace_scf_jax.models.electrostatics import electrostatics_settings
from mace_scf_jax.models.families.fixed_point.measured import scale_charge_heads
from mace_scf_jax.options.error import ConfigurationError

SETTINGS = tiny_settings("FixedPoint")
MULTIPOLES = np.random.default_rng(0).normal(size=(2, 5, 4))
LEVELS = (-3.0, -2.0)


def labelled(index, *, multipoles=True, level=True):
    """A structure with some of its labels."""
    entry = structure((molecule(), periodic())[index], SETTINGS)
    configuration = entry.configuration
    values, weights = dict(configuration.values), dict(configuration.weights)
    for name, wanted, value in (
        ("atomic_multipoles", multipoles, MULTIPOLES[index]),
        ("fermi_level", level, np.asarray(LEVELS[index])),
    ):
        if wanted:
            values[name], weights[name] = value, np.ones(())
    changed = dataclasses.replace(configuration, values=values, weights=weights)
    return dataclasses.replace(entry, configuration=changed)


def fixed_point_options(**changes):
    stage = STAGE | {"fixed_point_training_options": {"mode": "direct"}}
    return options(model="FixedPoint", train_schedule={0: stage}, **changes)


def fixed_point(*structures, elements=(1, 8), **changes):
    given = fixed_point_options(
        atomic_multipoles_smearing_width=1.0,
        kspace_cutoff_factor=0.9,
        electrostatic_pbc_method="mixed_periodic",  # for which `labelled` prepares
        **changes,
    )
    training = TrainingSet(
        elements=elements,
        atomic_energies=(0.0,) * len(elements),
        electrostatics=electrostatics_settings(
            given.family, given, pbc=np.ones((1, 3), dtype=bool)
        ),
        catalogue=Catalogue.of([entry.configuration for entry in structures]),
        batches=lambda: [collate(structures)] if structures else [],
    )
    return FixedPointSettings.from_options(given, training)


def test_norms_are_root_mean_squares_of_the_features_of_the_reference():
    """Those that the model itself gives for the reference multipoles, with norms of 1."""
    found = fixed_point(labelled(0), labelled(1))
    assert found.fermi_level_offset == -2.5
    settings = tiny_settings("FixedPoint")
    choices = dataclasses.replace(
        settings.own, fermi_level_offset=-2.5, field_feature_norms=(1.0,) * 4
    )
    settings = dataclasses.replace(settings, own=choices)
    module = build(settings)
    graph = jax.tree.map(jax.numpy.asarray, collate([labelled(0), labelled(1)]))
    params = random_parameters(module, graph)

    @jax.jit
    def features(graph):
        local = module.apply({"params": params}, graph, method="local")
        levels = graph.fermi_level[graph.atom_graph]
        p = graph.labels["atomic_multipoles"]
        return module.apply({"params": params}, local, p, levels, method="field_features")

    values = np.asarray(features(graph))[:10]
    blocks = [values[:, :1], values[:, 1:2], values[:, 2:5], values[:, 5:8]]
    expected = [np.sqrt(np.mean(block**2)) for block in blocks]
    np.testing.assert_allclose(found.field_feature_norms, expected, rtol=1e-12)


def test_structures_without_labels_do_not_count():
    alone = fixed_point(labelled(0))
    for other in (labelled(1, multipoles=False), labelled(1, level=False)):
        found = fixed_point(labelled(0), other, fermi_level_offset=alone.fermi_level_offset)
        np.testing.assert_allclose(found.field_feature_norms, alone.field_feature_norms, rtol=1e-12)


def test_labels_that_are_missing_altogether():
    partly = labelled(0, level=False), labelled(1, multipoles=False)
    with pytest.raises(ConfigurationError, match="'field_feature_norms': average needs a training"):
        fixed_point(*partly, field_feature_norms="average")
    assert fixed_point(*partly).field_feature_norms == (1.0,) * 4
    keys = {"info_keys": {"total_charge": "q", "fermi_level": "mu"}, "arrays_keys": {}}
    with pytest.raises(ConfigurationError, match="no training configuration has a fermi_level"):
        fixed_point(labelled(0, level=False), heads={"DFT": keys}, field_feature_norms=None)
    assert fixed_point(labelled(0, level=False), field_feature_norms=None).fermi_level_offset == 0.0


def test_numbers_that_are_given_are_taken():
    found = fixed_point(labelled(0), field_feature_norms=[30, 25, 4, 3], fermi_level_offset=-1.0)
    assert found.field_feature_norms == (30.0, 25.0, 4.0, 3.0)
    assert found.fermi_level_offset == -1.0
    assert fixed_point(labelled(0), field_feature_norms=None).field_feature_norms == (1.0,) * 4
    with pytest.raises(ConfigurationError, match="expected 4 numbers, one for each order up to 1"):
        fixed_point(labelled(0), field_feature_norms=[1.0, 2.0])


def test_density_scaling(caplog):
    linear = {"use_linear_local_charges": True, "field_feature_norms": None}
    assert fixed_point(labelled(0), **linear).atom_density_scaling == (1.0, 1.0)
    given = fixed_point(labelled(0), atom_density_scaling={"O": 2.0, "H": 0.5}, **linear)
    assert given.atom_density_scaling == (0.5, 2.0)
    numbers = labelled(0).configuration.atomic_numbers
    expected = [np.sqrt(np.mean(MULTIPOLES[0][numbers == z] ** 2)) for z in (1, 8)]
    unlabelled = labelled(1, multipoles=False)
    average = fixed_point(labelled(0), unlabelled, atom_density_scaling="average", **linear)
    np.testing.assert_allclose(average.atom_density_scaling, expected)
    none = fixed_point(unlabelled, atom_density_scaling="average", **linear)
    assert none.atom_density_scaling == (1.0, 1.0)
    assert "no reference multipoles of H, using 1" in caplog.text
    with pytest.raises(ConfigurationError, match="each of the elements H, O, found H"):
        fixed_point(labelled(0), atom_density_scaling={"H": 0.5}, **linear)
    nonlinear = fixed_point(labelled(0), atom_density_scaling="average")
    assert nonlinear.atom_density_scaling is None
    update = {"type": "OneBodyScaledNonLinearUpdate"}
    scaled = fixed_point(
        labelled(0), fixedpoint_update_config=update, atom_density_scaling={"O": 2.0, "H": 0.5}
    )
    assert scaled.atom_density_scaling == (0.5, 2.0)


def test_every_choice_comes_from_its_option():
    found = fixed_point(
        labelled(0),
        fixedpoint_update_config={
            "type": "ManyBodyUpdate",
            "potential_embedding_cls": "TanhPotentialEmbedding",
            "nonlinearity_cls": "MLPNonLinearity",
            "correlation": 2,
            "use_sc": False,
        },
        field_readout_config={"type": "NullFieldReadout"},
        include_local_electron_energy=False,
    )
    assert (found.update, found.correlation) == ("ManyBodyUpdate", 2)
    assert (found.potential_embedding, found.nonlinearity) == (
        "TanhPotentialEmbedding",
        "MLPNonLinearity",
    )
    assert (found.skip_connection, found.include_field_energy) == (False, False)
    assert found.field_readout == "NullFieldReadout"
    given = options(
        model="FixedPoint",
        field_feature_max_l=0,
        field_feature_widths=[1.5],
        include_field_si=True,
        train_schedule={0: STAGE | {"fixed_point_training_options": {"mode": "direct"}}},
    )
    found = electrostatics_settings(given.family, given, pbc=np.zeros((1, 3), bool))
    assert found.features == FieldFeatureSettings(0, (1.5,), include_self_interaction=True)


def test_charge_heads_start_small():
    module = build(SETTINGS)
    params = random_parameters(module, collate([labelled(0)]))
    scaled = scale_charge_heads(params, fixed_point_options())
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): (old, new)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(scaled), strict=True
        )
    }
    changed = {name for name, (old, new) in paths.items() if not np.array_equal(old, new)}
    assert changed == {
        name
        for name in paths
        if name.startswith("density_update/response/output/")
        or (name.startswith("multipole_readout_") and name.split("/")[1] == "linear")
    }
    for name in changed:
        np.testing.assert_allclose(paths[name][1], 0.01 * paths[name][0])
    unscaled = fixed_point_options(fixedpoint_initial_charge_head_scale=1.0)
    assert scale_charge_heads(params, unscaled) is params
