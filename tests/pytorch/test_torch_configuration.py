"""Settings from configurations of the PyTorch packages, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tiny_models import tiny_settings

from mace_scf_jax.pytorch.configuration import (
    OWN_SETTINGS,
    TorchConfigurationError,
    configuration_from_settings,
    settings_from_configuration,
)
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file

MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"
META = {path.stem: read_reference_file(path).meta for path in sorted(MODELS.glob("*.npz"))}


@pytest.mark.parametrize("name", META)
def test_there_and_back(name):
    settings = settings_from_configuration(META[name])
    configuration = configuration_from_settings(settings)
    assert settings_from_configuration(configuration) == settings
    for part in ("model", "atomic_numbers", "field_readout_config"):
        assert configuration.get(part) == META[name].get(part)
    assert configuration["backbone"] == META[name]["backbone"] | {"gate": "silu"}


def test_every_family_is_there():
    assert {meta["model"] for meta in META.values()} == set(OWN_SETTINGS)


def test_an_unknown_family():
    with pytest.raises(TorchConfigurationError, match=r"one of MACE, .*, found 'LocalCharge'"):
        settings_from_configuration({**META["mace"], "model": "LocalCharge"})


def test_a_missing_option():
    options = dict(META["local_charges"]["options"])
    del options["pbc_handling"]
    with pytest.raises(TorchConfigurationError, match="found no entry 'pbc_handling'"):
        settings_from_configuration({**META["local_charges"], "options": options})


def test_an_unknown_argument():
    backbone = META["mace"]["backbone"] | {"edge_irreps": "4x0e"}
    with pytest.raises(TorchConfigurationError, match=r"\['edge_irreps'\]"):
        settings_from_configuration({**META["mace"], "backbone": backbone})


def test_a_plain_mace_of_one_layer_keeps_its_degrees():
    backbone = META["mace"]["backbone"] | {"num_interactions": 1}
    settings = settings_from_configuration({**META["mace"], "backbone": backbone})
    assert settings.backbone.layer_max_degree(0) == 1
    assert configuration_from_settings(settings)["backbone"]["num_interactions"] == 1


@pytest.mark.parametrize(
    ("family", "part", "changes", "message"),
    [
        ("LocalSplitCharges", "own", {}, r"range \(-4.0, 4.0\), .* in \(-6.0, 6.0\)"),
        ("LocalCharges", "electrostatics", {"kspace_fade": 0.1}, "sharp cutoff"),
        ("LocalCharges", "backbone", {"scalar_last_layer": True}, "degrees up to 1, here up to 0"),
        ("MACE", "backbone", {"scalar_last_layer": False}, "degrees up to 0, here up to 1"),
    ],
)
def test_models_that_pytorch_lacks(family, part, changes, message):
    settings = tiny_settings(family, num_interactions=2)
    changed = dataclasses.replace(getattr(settings, part), **changes)
    with pytest.raises(TorchConfigurationError, match=message):
        configuration_from_settings(dataclasses.replace(settings, **{part: changed}))
