"""Training that starts from another model: what is taken over, and how charges begin."""

from __future__ import annotations

import dataclasses

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from ase.build import molecule
from start_models import (
    ENERGIES,
    KINDS,
    OFFSETS,
    SCALE,
    SHIFT,
    STAGE,
    drawn,
    options,
    prepared,
    start_settings,
    structures,
    write_start,
)
from tiny_models import tiny_settings

from mace_scf_jax import load_model
from mace_scf_jax.layers.drawn import drawn_parameters
from mace_scf_jax.models import ScaleShiftSettings, build, evaluate
from mace_scf_jax.models.model_file import save_model
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.checks import check_groups
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.preprocessing import PreprocessOptions
from mace_scf_jax.training.loop.modes import in_double_precision
from mace_scf_jax.training.settings import preprocess_settings
from mace_scf_jax.training.start.beginning import with_small_charges
from mace_scf_jax.training.start.start_model import StartModel
from mace_scf_jax.training.start.weights import start_weights
from mace_scf_jax_cli.main import main

GROUPS = ("embedding", "interactions_decay", "interactions_no_decay", "products", "readouts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A start model, and structures labelled by it."""
    folder = tmp_path_factory.mktemp("start")
    write_start(folder)
    return folder


def predictions(run):
    atoms = structures()
    return Model(run.settings, run.parameters).predict(atoms), atoms


@pytest.mark.parametrize(
    "kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.slow), KINDS[2]]
)
def test_a_model_of_fewer_elements_is_the_same_on_these(kind):
    """All elements, maps by element, products; scale and shift are kept within the family."""
    settings = start_settings(kind)
    start = StartModel(settings, jax.tree.map(np.asarray, drawn(settings)))
    few = start.for_elements((1, 8))
    parameters, mapping = start_weights(start, few, drawn(few, seed=1))
    assert mapping.cut
    assert (mapping.new, mapping.dropped) == ((), ())
    found = Model(few, parameters).predict(structures())
    for one, other in zip(found, Model(settings, start.parameters).predict(structures())):  # noqa: B905
        np.testing.assert_allclose(one["energy"], other["energy"], rtol=1e-12)
        np.testing.assert_allclose(one["forces"], other["forces"], atol=1e-11)


def test_the_same_family_begins_where_the_start_model_is(folder, caplog):
    """Energies of isolated atoms are estimated, so that even total energies are right."""
    with caplog.at_level("INFO"):
        run = prepared(folder)
    assert "0 new, 0 left out" in caplog.text
    assert run.settings.family == "ScaleShiftMACE"
    assert run.settings.elements == (1, 8)
    assert run.settings.own == ScaleShiftSettings(SCALE, SHIFT)
    assert "H -12.5000 (start model -13.0000), O -2043.0000" in caplog.text
    assert "estimated, rank 2 of 2" in caplog.text
    expected = [ENERGIES[1] + OFFSETS["H"], ENERGIES[8] + OFFSETS["O"]]
    np.testing.assert_allclose(run.settings.atomic_energies, expected, rtol=1e-9)
    found, _ = predictions(run)
    labels = [atoms.info["REF_energy"] for atoms in ase.io.read(folder / "train.xyz", ":")]
    # estimated energies are rounded to 1e-6 eV for each of up to four atoms
    np.testing.assert_allclose([it["energy"] for it in found], labels, atol=1e-5)


def test_isolated_atoms_of_the_training_file_win(folder, tmp_path, caplog):
    atoms = ase.io.read(folder / "train.xyz", ":")
    for symbol, energy in (("H", -5.0), ("O", -7.0)):
        alone = ase.Atoms(symbol, info={"config_type": "IsolatedAtom", "REF_energy": energy})
        alone.arrays["REF_forces"] = np.zeros((1, 3))
        atoms.append(alone)
    ase.io.write(tmp_path / "with_atoms.xyz", atoms, format="extxyz")
    with caplog.at_level("INFO"):
        run = prepared(folder, train_file=str(tmp_path / "with_atoms.xyz"))
    assert run.settings.atomic_energies == (-5.0, -7.0)
    assert (
        "Energies of isolated atoms / eV: H -5.0000 (start model -13.0000), O -7.0000 (start model "
        "-2041.0000); isolated atoms of the training file" in caplog.text
    )


def test_all_elements_can_be_kept(folder):
    run = prepared(folder, start_elements="all", E0s="start")
    assert run.settings.elements == tuple(ENERGIES)
    assert run.settings.atomic_energies == tuple(ENERGIES.values())


CHARGED = {
    "LocalCharges": {"conserve_charge": "none"},
    "LocalSplitCharges": {
        "atomic_formal_charges": {"H": 0.0, "O": 0.0},
        "oxidation_state_mixer": "NoOxidationStateMixer",
    },
    "MACEQEq": {},
    "FixedPoint": {},
    "PolarMACE": {},
}


@pytest.mark.parametrize(
    "family",
    [
        "MACE",
        "LocalCharges",
        pytest.param("FixedPoint", marks=pytest.mark.slow),
        pytest.param("PolarMACE", marks=pytest.mark.slow),
        pytest.param("LocalSplitCharges", marks=pytest.mark.slow),
        pytest.param("MACEQEq", marks=pytest.mark.slow),
    ],
)
def test_another_family_begins_near_the_start_model(folder, family, caplog):
    """Without scale and shift, with charges that are small but do learn from energies."""
    with caplog.at_level("INFO"):
        run = prepared(folder, model=family, **CHARGED.get(family, {}))
    assert run.settings.family == family
    assert not run.settings.backbone.scalar_last_layer or family == "MACE"
    found, atoms = predictions(run)
    before = load_model(folder / "start.model.safetensors").predict(atoms)
    for one, other, entry in zip(found, before, atoms, strict=True):
        offset = sum(OFFSETS[symbol] for symbol in entry.get_chemical_symbols())
        change = (one["energy"] - other["energy"] - offset) / len(entry)
        assert abs(change) < (
            3e-3 if family == "FixedPoint" else 1e-3 if family in CHARGED else 1e-6
        )
    if family not in CHARGED:
        return
    charges = np.concatenate([it["charges"] for it in found])
    assert 0.003 < np.sqrt(np.mean(charges**2)) < 0.03
    (graph,) = list(run.training.epoch(0))[:1]
    graph, module = jax.tree.map(jnp.asarray, graph), build(run.settings)

    def energy(parameters):
        outputs = evaluate(module, parameters, graph, forces=False)
        return jnp.sum(jnp.where(graph.graph_mask, outputs["energy"], 0.0))

    gradient = jax.grad(energy)(run.parameters)
    readouts = [gradient[name] for name in gradient if "readout_" in name or "transfer" in name]
    assert any(np.any(np.abs(leaf) > 1e-8) for leaf in jax.tree.leaves(readouts))


def test_charges_are_scaled_to_what_is_asked(folder):
    run = prepared(folder, model="LocalCharges", start_charge=0.05, **CHARGED["LocalCharges"])
    batches = list(run.training.epoch(0))
    again = with_small_charges(run.settings, run.parameters, batches, charge=0.1)
    found = [
        np.linalg.norm(tree["multipole_readout_0"]["linear"]["degree_0"])
        for tree in (again, run.parameters)
    ]
    assert found[0] / found[1] == pytest.approx(2.0, rel=0.3)


def test_training_starts_there_and_keeps_what_is_frozen(folder, monkeypatch):
    """From the command line, twice: the second run has nothing to do."""
    frozen = ["embedding", "interactions_decay", "interactions_no_decay", "products"]
    stage = STAGE | {"end": 1, "freeze": frozen}
    config = options(folder, model="LocalCharges", train_schedule={0: stage}, E0s="foundation")
    config["foundation_model"] = config.pop("start_from")
    config |= CHARGED["LocalCharges"] | {"name": "frozen"}
    monkeypatch.chdir(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "config.yaml"]) == 0
    assert main(["train", "config.yaml"]) == 0
    trained = load_model(folder / "frozen_only.model.safetensors")
    start = prepared(folder, model="LocalCharges", E0s="start", **CHARGED["LocalCharges"])
    assert trained.record["training_options"]["start_from"].endswith("start.model.safetensors")
    for name, before in start.parameters["backbone"].items():
        same = jax.tree.map(np.array_equal, before, trained.parameters["backbone"][name])
        kept = not name.startswith("readout_")
        assert all(jax.tree.leaves(same)) == kept, name
    moved = jax.tree.map(
        np.array_equal,
        start.parameters["multipole_readout_0"],
        trained.parameters["multipole_readout_0"],
    )
    assert not all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r_max": 5.0}, "option 'r_max': the start model has 4, found 5; leave it out"),
        ({"hidden_irreps": "8x0e"}, "option 'hidden_irreps': the start model has 4x0e"),
        ({"start_from": "none.model.safetensors"}, "option 'start_from': "),
        ({"start_from": None, "hidden_irreps": "2x0e", "E0s": "estimated"}, "needs 'start_from'"),
        ({"start_from": None, "hidden_irreps": "2x0e", "start_charge": 0.1}, "needs 'start_from'"),
        ({"start_charge": 0.1}, "ScaleShiftMACE has no charges that are scaled"),
        ({"model": "EnergyFunctional", "start_charge": 0.1}, "has no charges that are scaled"),
        ({"max_energy": 1.0}, "option 'max_energy': needs energies of isolated atoms before"),
        ({"train_schedule": {0: STAGE | {"freeze": ["embeding"]}}}, "did you mean 'embedding'"),
        (
            {
                "optimizer": "levenberg_marquardt",
                "train_schedule": {0: STAGE | {"freeze": ["products"]}},
            },
            "'freeze' cannot be used with the optimizer levenberg_marquardt",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder, changes, message):
    with pytest.raises(ConfigurationError) as error:
        TrainOptions(**options(folder, **changes))
    assert message in str(error.value)


def test_the_learning_rate_is_small_unless_given(folder):
    without = {name: value for name, value in STAGE.items() if name != "lr"}
    given = TrainOptions(**options(folder, train_schedule={0: without}))
    assert given.train_schedule[0].lr == 1e-4
    assert TrainOptions(**options(folder)).lr == 0.01


def test_a_start_model_that_is_missing_is_the_only_problem(folder):
    """Not the sizes, which it would have given."""
    with pytest.raises(ConfigurationError) as error:
        TrainOptions(**options(folder, start_from="none.model.safetensors"))
    assert str(error.value) == "option 'start_from': none.model.safetensors: no such model file"


@pytest.mark.parametrize("nothing", ["None", "null"])
def test_no_start_model_in_words(folder, nothing):
    given = options(folder, start_from=nothing, start_head=nothing, hidden_irreps="2x0e")
    assert TrainOptions(**given).start_from is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["products", "lr_source_maps"], "found lr_source_maps, of which the model has no param"),
        (list(GROUPS), "found all groups, nothing is left to train"),
    ],
)
def test_groups_that_cannot_be_frozen_are_refused(folder, groups, message):
    settings = start_settings()
    stage = STAGE | {"freeze": groups}
    given = TrainOptions(**options(folder, train_schedule={0: stage}))
    with pytest.raises(ConfigurationError, match=message):
        check_groups(given, drawn(settings))


def test_what_is_not_of_the_model_may_differ_within_a_family(folder, tmp_path):
    """Decays and reports of a family; but not what its model is made of."""
    settings = tiny_settings("FixedPoint")
    save_model(tmp_path / "own.model.safetensors", {"weights": np.zeros(1)}, settings, {})
    given = options(folder, start_from=str(tmp_path / "own.model.safetensors"))
    found = TrainOptions(**given, field_block_weight_decay=0.1, scf_convergence_summary=False)
    assert found.field_block_weight_decay == 0.1
    with pytest.raises(ConfigurationError, match="option 'include_field_si': is decided by"):
        TrainOptions(**given, include_field_si=True)


def test_charges_of_the_same_family_add_up_in_the_same_way(folder, tmp_path):
    settings = tiny_settings("LocalCharges")
    save_model(tmp_path / "own.model.safetensors", {"weights": np.zeros(1)}, settings, {})
    given = options(folder, start_from=str(tmp_path / "own.model.safetensors"))
    assert TrainOptions(**given, conserve_charge="none").conserve_charge == "none"
    with pytest.raises(ConfigurationError, match="the start model has none, found learned"):
        TrainOptions(**given, conserve_charge="learned")


def test_the_same_sizes_may_be_given(folder):
    given = TrainOptions(**options(folder, r_max=4.0, num_channels=4, max_L=1))
    assert given.irreps == "4x0e + 4x1o"


def test_preprocessing_prepares_for_the_electrostatics_of_the_start_model(folder, tmp_path):
    """Receivers that are wider than those of the defaults have longer tails."""
    settings = tiny_settings("FixedPoint")
    features = dataclasses.replace(settings.density.features, widths=(1.0, 4.0))
    wide = dataclasses.replace(settings.density, features=features)
    settings = dataclasses.replace(settings, electrostatics=wide)
    save_model(tmp_path / "wide.model.safetensors", {"weights": np.zeros(1)}, settings, {})
    given = options(folder, start_from=str(tmp_path / "wide.model.safetensors"))
    found = preprocess_settings(PreprocessOptions(**given), workers=1, shard_megabytes=1.0)
    assert found.tails == wide.tails
    assert found.kspace_cutoff == wide.indices_cutoff


def chlorides(folder):
    """A file with an element that the start model lacks."""
    found = []
    for seed in range(4):
        atoms = molecule(("CH3Cl", "HCl")[seed % 2])
        atoms.rattle(0.1, seed=seed)
        atoms.info["REF_energy"] = -2.0 * len(atoms)
        atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))
        found.append(atoms)
    ase.io.write(folder / "other.xyz", found, format="extxyz")
    return str(folder / "other.xyz"), found


def test_an_element_that_the_start_model_lacks_is_named(folder, tmp_path):
    energies = {"H": 0.0, "C": 0.0, "Cl": 0.0}
    file, _ = chlorides(tmp_path)
    with pytest.raises(ConfigurationError, match="the data have Cl, which the start model does"):
        prepared(folder, train_file=file, E0s=energies)


def test_a_new_element_begins_as_another(folder, tmp_path):
    """With weights, and an energy that is estimated; it may take the place of what is not there."""
    file, atoms = chlorides(tmp_path)
    run = prepared(folder, train_file=file, new_elements={"Cl": "Na"})
    assert run.settings.elements == (1, 6, 17)
    alike = [entry.copy() for entry in atoms]
    for entry in alike:
        entry.numbers[entry.numbers == 17] = 11
    # the repulsion of nuclei is that of the true elements
    here, there = (
        dataclasses.replace(it, backbone=dataclasses.replace(it.backbone, pair_repulsion=False))
        for it in (run.settings, start_settings())
    )
    found = Model(here, run.parameters).predict(atoms, forces=False)
    start = load_model(folder / "start.model.safetensors")
    before = Model(there, start.parameters).predict(alike, forces=False)
    for one, other in zip(found, before, strict=True):
        np.testing.assert_allclose(
            one["interaction_energy"], other["interaction_energy"], rtol=1e-10
        )


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"Cl": "Br"}, "the start model does not know Br, as which Cl is to begin"),
        ({"Na": "H"}, "option 'new_elements': the start model knows Na"),
        ({"Cl": 0.5}, "expected two elements such as F: Cl, found 'Cl': 0.5"),
    ],
)
def test_new_elements_that_cannot_be_are_refused(folder, new, message):
    with pytest.raises(ConfigurationError) as error:
        TrainOptions(**options(folder, new_elements=new))
    assert message in str(error.value)


def test_settings_of_nuclear_repulsion_of_earlier_files_are_read():
    """Its factor is written only where there is one."""
    backbone = start_settings().backbone
    assert "pair_repulsion_scale" not in backbone.to_dict()
    scaled = dataclasses.replace(backbone, pair_repulsion_scale=0.5)
    assert scaled.to_dict()["pair_repulsion_scale"] == 0.5


def test_a_head_of_a_start_model_of_several(tmp_path):
    settings = start_settings()
    several = dataclasses.replace(
        settings,
        backbone=dataclasses.replace(settings.backbone, heads=("low", "high")),
        atomic_energies=(settings.atomic_energies, tuple(0.9 * e for e in ENERGIES.values())),
        own=ScaleShiftSettings((0.8, 0.7), (0.3, 0.1)),
    )
    unprepared = Model(several, {"weights": np.zeros(1)})
    (batch,) = unprepared.batches(unprepared.prepare_atoms(structures(2)))
    graph = batch.graph.replace(head=np.ones(batch.graph.num_graphs, np.int32))
    parameters = drawn_parameters(build(several), jax.random.key(0), in_double_precision(graph))
    whole = Model(several, parameters, {})
    whole.save(tmp_path / "several.model.safetensors")
    path = str(tmp_path / "several.model.safetensors")
    start = StartModel.read(path, "high")
    found = Model(start.settings, start.parameters).predict(structures(2))
    expected = whole.evaluate(parameters, graph)["energy"][:2]
    np.testing.assert_allclose([it["energy"] for it in found], expected, rtol=1e-12)
    with pytest.raises(ConfigurationError, match=r"expected one of the heads .* low, high"):
        StartModel.read(path)
    with pytest.raises(ConfigurationError, match="found 'hihg'; did you mean 'high'"):
        StartModel.read(path, "hihg")


def test_replay_is_another_head(folder, tmp_path):
    """Both heads begin as that of the start model, with atomic energies of their own level."""
    atoms = ase.io.read(folder / "train.xyz", ":")
    for entry in atoms:
        offset = sum(OFFSETS[symbol] for symbol in entry.get_chemical_symbols())
        entry.info |= {"REF_energy": entry.info["REF_energy"] - offset, "head": "start"}
    mine = ase.io.read(folder / "train.xyz", ":")
    for entry in mine:
        entry.info["head"] = "mine"
    ase.io.write(tmp_path / "both.xyz", [*mine, *atoms], format="extxyz")
    keys = {"info_keys": {"energy": "REF_energy"}, "arrays_keys": {"forces": "REF_forces"}}
    changes = {
        "train_file": str(tmp_path / "both.xyz"),
        "heads": {"mine": keys, "start": keys | {"E0s": "foundation"}},
        "energy_key": None,
        "forces_key": None,
    }
    run = prepared(folder, **changes)
    assert run.settings.heads == ("mine", "start")
    energies = np.array(run.settings.atomic_energies)
    np.testing.assert_allclose(energies[1], [ENERGIES[1], ENERGIES[8]])
    np.testing.assert_allclose(energies[0] - energies[1], [*OFFSETS.values()], rtol=1e-6)
    labels = [entry.info["REF_energy"] for entry in (*mine, *atoms)]
    whole = Model(run.settings, run.parameters)
    found = [
        it["energy"]
        for head in run.settings.heads
        for it in whole.using(head=head).predict(structures())
    ]
    # estimated energies are rounded to 1e-6 eV for each of up to four atoms
    np.testing.assert_allclose(found, labels, atol=1e-5)
