"""``mace-scf-jax descriptors``: raw features in a file, from a model and from a configuration."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import yaml
from ase.io import read, write
from tiny_models import assert_close, molecule, periodic, tiny_descriptor_backbone, tiny_model

from mace_scf_jax import energy_function
from mace_scf_jax.backbones import FeatureStatistics
from mace_scf_jax.predict.distances import ShortDistanceWarning
from mace_scf_jax.simulate.calculator import MACESCFCalculator
from mace_scf_jax.simulate.settings import SimulationSettings
from mace_scf_jax.simulate.simulation import Simulation
from mace_scf_jax_cli.main import main

CONFIG = {
    "model": "ChebyshevANN",
    "descriptor": {
        "rad_order": 2,
        "rad_cutoff": 3.0,
        "ang_order": 2,
        "ang_cutoff": 2.5,
        "min_cutoff": 0.4,
        "species": ["O", "H"],
    },
}


@pytest.fixture(scope="module")
def structures():
    return [molecule(0), periodic(1), molecule(2)]


@pytest.fixture(scope="module")
def folder(structures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    write(folder / "in.xyz", structures, format="extxyz")
    tiny_model("ChebyshevANN").save(folder / "tiny.model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def described(folder, source) -> dict[str, np.ndarray]:
    output = folder / f"{source}.npz"
    words = [str(folder / source), str(folder / "in.xyz"), "-o", str(output)]
    assert main(["descriptors", *words]) == 0
    with np.load(output) as archive:
        return dict(archive)


def test_features_are_those_of_the_model_before_normalisation(folder, structures, capsys):
    found = described(folder, "tiny.model.safetensors")
    assert "Wrote 12 features of 15 atoms in 3 structures" in capsys.readouterr().out
    predictions = tiny_model("ChebyshevANN").predict(structures, further=("descriptors",))
    for index, (prediction, atoms) in enumerate(zip(predictions, structures, strict=True)):
        own = found["structure"] == index
        np.testing.assert_array_equal(found["numbers"][own], atoms.numbers)
        assert_close(found["features"][own], prediction["descriptors"], 1e-7)  # digits of the file
    assert found["names"].tolist() == (
        ["R_0", "R_1", "R_2", "A_0", "A_1", "A_2", "Rw_0", "Rw_1", "Rw_2", "Aw_0", "Aw_1", "Aw_2"]
    )
    assert found["species"].tolist() == ["O", "H"]
    assert json.loads(str(found["descriptor"]))["ang_cutoff"] == 2.5


def test_a_configuration_needs_no_model(folder):
    found = described(folder, "config.yaml")
    expected = described(folder, "tiny.model.safetensors")
    np.testing.assert_array_equal(found["features"], expected["features"])
    assert str(found["descriptor"]) == str(expected["descriptor"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"descriptor": None}, "expected the option 'descriptor' with rad_order"),
        ({"descriptor": {"rad_order": 2}}, "descriptor: "),
        (
            {"descriptor": CONFIG["descriptor"] | {"species": ["O"]}},
            "species: expected all elements of the structures, found no H in O",
        ),
    ],
)
def test_configurations_without_a_descriptor_of_the_structures_are_refused(
    folder, tmp_path, capsys, changes, message
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    words = [str(tmp_path / "config.yaml"), str(folder / "in.xyz")]
    assert main(["descriptors", *words, "-o", str(tmp_path / "out.npz")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_models_without_a_descriptor_are_refused(folder, tmp_path, capsys):
    tiny_model("ScaleShiftMACE").save(tmp_path / "mace.model.safetensors")
    words = [str(tmp_path / "mace.model.safetensors"), str(folder / "in.xyz")]
    assert main(["descriptors", *words, "-o", str(tmp_path / "out.npz")]) == 2
    assert "expected a model with the backbone chebyshev, found MACE" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"backbone MACE .* \(none\), found 'descriptors'"):
        tiny_model("ScaleShiftMACE").predict(molecule(), further=("descriptors",))


def model_of_range(structures):
    """A model that was trained on some structures, as far as the range of its features tells."""
    model = tiny_model("ChebyshevANN")
    features = np.concatenate(
        [found["descriptors"] for found in model.predict(structures, further=("descriptors",))]
    )
    low, high = (tuple(map(tuple, edge[None])) for edge in (features.min(0), features.max(0)))
    mean, std = (features.mean(0),), (features.std(0),)
    statistics = FeatureStatistics(mean, std, minimum=low, maximum=high)
    backbone = tiny_descriptor_backbone(features=statistics)
    settings = dataclasses.replace(model.settings, backbone=backbone)
    return dataclasses.replace(model, settings=settings)


def test_evaluate_tells_what_is_outside_the_training_set(folder, structures, tmp_path, capsys):
    model = model_of_range(structures)
    path = tmp_path / "model.safetensors"
    model.save(path)
    words = ["evaluate", str(path), str(folder / "in.xyz")]
    assert main(words) == 0
    assert "Features outside the range of the training set: 0.00%" in capsys.readouterr().out

    other = molecule(2)
    other.positions[0] += 0.5
    write(tmp_path / "other.xyz", [structures[0], other], format="extxyz")
    output = tmp_path / "out.xyz"
    words = ["evaluate", str(path), str(tmp_path / "other.xyz"), "--descriptors"]
    assert main([*words, "--output", str(output)]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if "outside the range" in row)
    first, second = read(output, ":")
    outside = second.arrays["MACE_extrapolation"]
    assert not first.arrays["MACE_extrapolation"].any()
    assert outside.max() > 0.0
    assert line.endswith(f"in 1 of 2 structures, most in configuration 1 ({outside.mean():.2%})")
    features, known = second.arrays["MACE_descriptors"], model.settings.backbone.features
    margin = 1e-4  # more than files round; hardly more than rounding counts as outside
    below = features < np.array(known.minimum) - margin
    above = features > np.array(known.maximum) + margin
    assert_close(outside, np.mean(below | above, axis=1), 1e-7)


def test_structures_closer_than_the_model_is_meant_for_are_warned_of_once(folder, structures):
    close = molecule(0)
    close.positions[1] = close.positions[0] + [0.35, 0.0, 0.0]
    model = model_of_range(structures)
    model.predict(structures)
    with pytest.warns(ShortDistanceWarning, match=r"structure 1: found atoms 0.350 Å .* 0.4 Å"):
        model.predict([structures[0], close])
    model.predict(close)  # says it once: warnings are errors here

    close.calc = MACESCFCalculator(tiny_model("ChebyshevANN"))
    with pytest.warns(ShortDistanceWarning, match="^found atoms 0.350 Å"):
        close.get_forces()
    close.rattle(1e-4)
    close.get_forces()
    simulation = Simulation(
        *energy_function(tiny_model("ChebyshevANN")),
        close,
        SimulationSettings(ensemble="nve", timestep=1e-6, temperature=1.0),
    )
    with pytest.warns(ShortDistanceWarning, match="^step 0: found atoms 0.350 Å"):
        simulation.observe()
    simulation.observe()
