"""Settings from configurations of the PyTorch packages, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from tiny_models import tiny_settings

from mace_scf_jax.backbones import settings_from_dict
from mace_scf_jax.pytorch.configuration import (
    OWN_SETTINGS,
    TorchConfigurationError,
    configuration_from_settings,
    settings_from_configuration,
)
from mace_scf_jax.pytorch.heads import choose_head, with_head
from mace_scf_jax.pytorch.module import TorchModel
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.units import FIELD_CONSTANT

FOUNDATION = Path(__file__).parents[1] / "data" / "reference" / "foundation"
MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"
MACELES = read_reference_file(FOUNDATION / "maceles.npz").meta
FILES = [*sorted(MODELS.glob("*.npz")), *sorted(FOUNDATION.glob("polar_*.npz"))]
META = {path.stem: read_reference_file(path).meta for path in FILES}


@pytest.mark.parametrize("name", META)
def test_there_and_back(name):
    settings = settings_from_configuration(META[name])
    configuration = configuration_from_settings(settings)
    assert settings_from_configuration(configuration) == settings
    for part in ("model", "atomic_numbers", "field_readout_config"):
        assert configuration.get(part) == META[name].get(part)
    assert configuration["backbone"] == META[name]["backbone"] | {"gate": "silu"}


def test_options_of_public_models_go_there_and_back():
    file = read_reference_file(FOUNDATION / "backbone_options.npz")
    whole = TorchModel(file.meta, file.state)
    model = with_head(whole, "b")
    settings = settings_from_configuration(model.configuration)
    assert settings.backbone.correlation == (2, 1)
    assert settings.atomic_energies == (-13.6, -2040.25, -4412.5)
    assert (settings.own.scale, settings.own.shift) == (1.25, 0.5)
    assert settings.backbone.layer_max_degree(1) == 1
    assert settings.backbone.inputs == ("total_spin", "total_charge")
    configuration = configuration_from_settings(settings)
    assert settings_from_configuration(configuration) == settings
    assert configuration["backbone"] == model.configuration["backbone"]
    given = settings_from_dict(json.loads(json.dumps(settings.backbone.to_dict())))
    assert given == settings.backbone


def test_the_head_has_to_be_named():
    file = read_reference_file(FOUNDATION / "backbone_options.npz")
    whole = TorchModel(file.meta, file.state)
    with pytest.raises(TorchConfigurationError, match=r"heads a, b; say which .*--head NAME"):
        with_head(whole)
    with pytest.raises(TorchConfigurationError, match=r"expected one of a, b, found 'c'"):
        with_head(whole, "c")
    assert choose_head(("pt_head", "Default"), None) == 1
    with pytest.raises(TorchConfigurationError, match="heads: expected one, found a, b"):
        settings_from_configuration(whole.configuration)


def test_every_family_is_there():
    assert {meta["model"] for meta in (*META.values(), MACELES)} == set(OWN_SETTINGS)


def test_constants_of_latent_charges_are_those_of_the_file():
    attributes = {"sigma": 2.0, "dl": 1.5, "norm_factor": 90.0474, "remove_self_interaction": False}
    options = MACELES["options"] | {"les_attributes": attributes}
    settings = settings_from_configuration(MACELES | {"options": options})
    assert settings.family == "LocalCharges"
    assert settings.density.smearing_width == pytest.approx(math.sqrt(2.0))
    assert settings.density.kspace_cutoff == pytest.approx(2.0 * math.pi / 1.5)
    assert settings.density.include_self_interaction
    assert settings.own.charge_scale**2 * FIELD_CONSTANT == pytest.approx(2.0 * 90.0474)
    assert (settings.own.scale, settings.own.shift) == (0.75, 0.125)
    with pytest.raises(TorchConfigurationError, match=r"a MACELES .* cannot be exported"):
        configuration_from_settings(settings)
    options["use_last_readout_only"] = True
    with pytest.raises(TorchConfigurationError, match="use_last_readout_only: expected a MACELES"):
        settings_from_configuration(MACELES | {"options": options})


def test_an_unknown_family():
    with pytest.raises(TorchConfigurationError, match=r"one of MACE, .*, found 'LocalCharge'"):
        settings_from_configuration({**META["mace"], "model": "LocalCharge"})


def test_a_missing_option():
    options = dict(META["local_charges"]["options"])
    del options["pbc_handling"]
    with pytest.raises(TorchConfigurationError, match="found no entry 'pbc_handling'"):
        settings_from_configuration({**META["local_charges"], "options": options})


def test_an_unknown_argument():
    backbone = META["mace"]["backbone"] | {"dropout": 0.5}
    with pytest.raises(TorchConfigurationError, match=r"\['dropout'\]"):
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
    ],
)
def test_models_that_pytorch_lacks(family, part, changes, message):
    settings = tiny_settings(family, num_interactions=2)
    changed = dataclasses.replace(getattr(settings, part), **changes)
    with pytest.raises(TorchConfigurationError, match=message):
        configuration_from_settings(dataclasses.replace(settings, **{part: changed}))
