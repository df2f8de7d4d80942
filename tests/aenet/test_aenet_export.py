"""Models as files of ænet: round trips, statistics that become part of the weights, refusals."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from aenet_files import EXPORTED, FORTRAN, model_of, paths_of, predictions_of, structures_of
from tiny_models import assert_close, periodic, tiny_descriptor_backbone, tiny_model

from mace_scf_jax.aenet import (
    AenetFileError,
    export_committee,
    export_potential,
    import_potential,
    read_potential,
)
from mace_scf_jax.aenet.text import write_text
from mace_scf_jax.backbones import FeatureStatistics
from mace_scf_jax.predict.committee import Committee
from mace_scf_jax.predict.model import Model

FAMILY = "ChebyshevANN"
SIZE = tiny_descriptor_backbone().descriptor.size


def with_backbone(**changes) -> Model:
    """The small model with other settings of the backbone."""
    model = tiny_model(FAMILY)
    backbone = dataclasses.replace(model.settings.backbone, **changes)
    return dataclasses.replace(
        model, settings=dataclasses.replace(model.settings, backbone=backbone)
    )


def statistics(mean, std) -> FeatureStatistics:
    """The same for all features."""
    return FeatureStatistics((np.full(SIZE, mean),), (np.full(SIZE, std),))


@pytest.mark.parametrize("name", [FORTRAN, EXPORTED])
def test_files_come_back(name, tmp_path):
    """Weights bit by bit, second moments to rounding, and what is told beside the model."""
    written = export_potential(model_of(name), tmp_path, prefix="again")
    assert sorted(path.name for path in written) == sorted(
        f"again.{path.name.split('.')[1]}.nn.ascii" for path in paths_of(name)
    )
    originals = {path.name.split(".")[1]: read_potential(path) for path in paths_of(name)}
    for path in written:
        found, expected = read_potential(path), originals[path.name.split(".")[1]]
        for (weights, biases), (others, other_biases) in zip(
            found.layers, expected.layers, strict=True
        ):
            np.testing.assert_array_equal(weights, others)
            np.testing.assert_array_equal(biases, other_biases)
        for row in ("minimum", "maximum", "average"):
            ours, theirs = (getattr(each.features, row) for each in (found, expected))
            np.testing.assert_array_equal(ours, theirs)
        ours, theirs = (each.features.second_moment for each in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
        assert found.features.atoms == expected.features.atoms
        for entry in ("description", "descriptor", "architecture", "E_scaling", "E_shift"):
            assert getattr(found, entry) == getattr(expected, entry), entry
        assert (found.atomic_energies, found.training) == (
            expected.atomic_energies,
            expected.training,
        )
    predictions = import_potential(written).predict(structures_of(name))
    for ours, theirs in zip(predictions, predictions_of(name), strict=True):
        assert_close(ours["energy"], theirs["energy"], 1e-12)
        assert_close(ours["forces"], theirs["forces"], 1e-12)


@pytest.mark.parametrize(
    ("changes", "folded"),
    [
        ({}, False),
        ({"features": None}, True),
        ({"features": statistics(3.0, 0.5)}, False),
        # 100² + 0.001² keeps the deviation to 1e-6
        ({"features": statistics(100.0, 1e-3)}, True),
    ],
    ids=["of each element", "none", "common", "lost"],
)
def test_energies_are_those_of_the_model_after_export(changes, folded, tmp_path):
    model = with_backbone(**changes)
    written = export_potential(model, tmp_path)
    for path in written:
        features = read_potential(path).features
        assert np.all(features.average == 0.0) == folded
        assert np.all(features.second_moment == 1.0) == folded
    again = import_potential(written)
    assert len(again.settings.backbone.features.mean) == (1 if changes else 2)
    ours, theirs = (each.predict(periodic(), stress=True) for each in (again, model))
    for output in ("energy", "node_energy", "forces", "stress"):
        assert_close(ours[output], theirs[output], 1e-10 if folded else 1e-12, output)


def test_folded_statistics_are_exact(tmp_path):
    """The network of the file on raw features against the equations of the model."""
    mean, std = 50.0, 1e-3
    model = with_backbone(features=statistics(mean, std), arch=(((3, "tanh"),), ((2, "tanh"),)))
    weights = {"O": (SIZE, 2), "H": (SIZE, 3)}
    rng = np.random.default_rng(1)
    networks = {
        symbol: {
            "weight_0": rng.normal(size=shape),
            "bias_0": rng.normal(size=shape[1]),
            "weight_1": rng.normal(size=(shape[1], 1)),
            "bias_1": rng.normal(size=1),
        }
        for symbol, shape in weights.items()
    }
    model = dataclasses.replace(model, parameters={"backbone": {"energy": networks}})
    normalised = rng.normal(size=(5, SIZE))
    for path in export_potential(model, tmp_path):
        potential = read_potential(path)
        own = networks[path.name.split(".")[1]]
        hidden = np.tanh(normalised @ own["weight_0"] + own["bias_0"])
        network = (hidden @ own["weight_1"] + own["bias_1"])[:, 0]
        expected = network / 0.5 - 2.0 + potential.atomic_energies[potential.element]
        found = potential.energies(mean + std * normalised)
        # features of 50 are known to 7e-15, which is 7e-12 of their deviation
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-9)


def test_features_that_are_left_out_stay_so(tmp_path):
    rows = np.ones((1, SIZE))
    without = 0.3 * rows
    without[0, 2] = 0.0
    for mean, folded in ((rows, False), (1e5 * rows, True)):
        kept = FeatureStatistics(tuple(map(tuple, mean)), tuple(map(tuple, without)))
        model = with_backbone(features=kept)
        for path in export_potential(model, tmp_path):
            potential = read_potential(path)
            assert np.all(potential.features.average == 0.0) == folded
            if folded:
                np.testing.assert_array_equal(potential.layers[0][0][2], 0.0)
            features = mean + np.random.default_rng(0).normal(size=(2, SIZE))
            features[1] = features[0]
            features[1, 2] = 1e4
            np.testing.assert_array_equal(*potential.energies(features))


def test_ranges_and_numbers_of_the_training_set_are_written(tmp_path):
    rows = tuple(tuple(np.arange(SIZE) + shift) for shift in (0.5, 2.5))
    of_model = tiny_descriptor_backbone().features
    kept = dataclasses.replace(of_model, minimum=rows, maximum=rows[::-1])
    energies = {"mean": -1.5, "standard_deviation": 0.1, "least": -2.0, "largest": -1.0}
    record = {
        "name": "'two words'",
        "data": {"train": {"structures": 7, "atoms": 35, "interaction_energy_per_atom": energies}},
    }
    model = dataclasses.replace(with_backbone(features=kept), record=record)
    written = {path.name.split(".")[1]: path for path in export_potential(model, tmp_path)}
    for row, symbol in zip(rows, ("H", "O"), strict=True):
        potential = read_potential(written[symbol])
        np.testing.assert_array_equal(potential.features.minimum, row)
        assert potential.training.name == "two words'"  # Fortran would take the quote for its own
        assert (potential.training.structures, potential.training.atoms) == (7, 35)
        assert potential.training.energies == (-2.0, -1.0, -1.5)
        assert list(potential.atomic_energies) == [8, 1]
    assert import_potential(list(written.values())).settings.backbone.features.minimum == rows


def test_small_numbers_keep_their_digits_and_lines_four_columns(tmp_path):
    model = tiny_model(FAMILY)
    small = jax.tree.map(lambda leaf: np.asarray(leaf) * 1e-13, model.parameters)
    written = export_potential(dataclasses.replace(model, parameters=small), tmp_path)
    again = import_potential(written)
    jax.tree.map(np.testing.assert_array_equal, again.parameters, small)
    assert max(len(line) for line in written[0].read_text().splitlines()) <= 100


def test_models_in_single_precision(tmp_path):
    model = tiny_model(FAMILY).using(dtype="float32")
    again = import_potential(export_potential(model, tmp_path), dtype=np.float32)
    assert again.dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, again.parameters, model.parameters)


def test_members_of_a_committee(tmp_path):
    members = tuple(tiny_model(FAMILY, seed=seed) for seed in (0, 1))
    written = export_committee(Committee(members), tmp_path, prefix="x")
    names = [str(path.relative_to(tmp_path)) for path in written]
    assert names == [f"member_00{k}/x.{el}.nn.ascii" for k in (0, 1) for el in ("H", "O")]
    for member, paths in zip(members, (written[:2], written[2:]), strict=True):
        again = import_potential(paths)
        jax.tree.map(np.testing.assert_array_equal, again.parameters, member.parameters)


@pytest.mark.parametrize("family", ["LocalCharges", "MACEQEq"])
def test_families_with_charges_are_refused(family, tmp_path):
    expected = rf"expected a model of the family {FAMILY}, found {family}"
    with pytest.raises(AenetFileError, match=expected):
        export_potential(tiny_model(family), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(AenetFileError, match=r"found MACE$"):
        export_potential(tiny_model("MACE"), tmp_path)
    descriptor = tiny_descriptor_backbone().descriptor
    open_ended = dataclasses.replace(descriptor, min_cutoff=0.0)
    with pytest.raises(AenetFileError, match=r"expected a min_cutoff above 0, .*, found 0"):
        export_potential(with_backbone(descriptor=open_ended), tmp_path)
    more = dataclasses.replace(descriptor, species=(8, 1, 6))
    with pytest.raises(AenetFileError, match="a network for every species, found none for C"):
        export_potential(with_backbone(descriptor=more), tmp_path)
    with pytest.raises(AenetFileError, match="prefix: expected the start of a name of files"):
        export_potential(tiny_model(FAMILY), tmp_path, prefix="a/b")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_the_model_do_not_get_their_names(tmp_path, monkeypatch):
    """As a fault in writing would have it."""

    def with_a_fault(path, potential):
        write_text(path, dataclasses.replace(potential, E_shift=potential.E_shift + 1e-6))

    monkeypatch.setattr("mace_scf_jax.aenet.exchange.write_text", with_a_fault)
    with pytest.raises(AenetFileError, match=r"energies of H deviate by 1\.0e-06 eV"):
        export_potential(tiny_model(FAMILY), tmp_path)
    assert not list(tmp_path.iterdir())
