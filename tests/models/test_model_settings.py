"""Settings of models: plain data and back, and what is refused; the registry of families."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tiny_models import CHARGED_FAMILIES, tiny_backbone, tiny_settings

from mace_scf_jax.electrostatics import FieldFeatureSettings
from mace_scf_jax.models import FAMILIES, ModelSettings, build


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_through_json(family):
    settings = tiny_settings(family)
    if settings.backbone.name == "MACE":
        interaction = "RealAgnosticInteractionBlock"
        settings = tiny_settings(family, radial_MLP=(8, 4), interaction=interaction)
    again = ModelSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert hash(again) == hash(settings)
    assert build(again) == build(settings)


def test_round_trip_with_field_features():
    settings = tiny_settings()
    features = FieldFeatureSettings(max_l=1, widths=(1.0, 2.0))
    settings = dataclasses.replace(
        settings, electrostatics=dataclasses.replace(settings.electrostatics, features=features)
    )
    assert ModelSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def without(data: dict, name: str) -> dict:
    return {key: value for key, value in data.items() if key != name}


def test_incomplete_or_unknown_settings_are_refused():
    data = tiny_settings().to_dict()
    with pytest.raises(ValueError, match="model settings: 'backbone'"):
        ModelSettings.from_dict(without(data, "backbone"))
    with pytest.raises(ValueError, match=r"model settings: .*'atomic_energies'"):
        ModelSettings.from_dict(without(data, "atomic_energies"))
    with pytest.raises(ValueError, match=r"model settings: .*'colour'"):
        ModelSettings.from_dict(data | {"colour": "red"})
    with pytest.raises(ValueError, match=r"model settings: .*'depth'"):
        ModelSettings.from_dict(data | {"backbone": data["backbone"] | {"depth": 3}})
    with pytest.raises(ValueError, match="max_ell: expected 0, 1, 2 or 3, found 9"):
        ModelSettings.from_dict(data | {"backbone": data["backbone"] | {"max_ell": 9}})


def test_one_atomic_energy_for_each_element():
    with pytest.raises(
        ValueError, match=r"atomic_energies: expected one energy .* elements \(1, 8\), found 3"
    ):
        ModelSettings("MACE", tiny_backbone(), (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LocalCharge", "did you mean 'LocalCharges'"),
        ("xyz", "known are ChebyshevANN, EnergyFunctional, FixedChargeBaselinedMACE, "),
    ],
)
def test_unknown_families_are_refused(name, hint):
    settings = dataclasses.replace(tiny_settings(), family=name)
    with pytest.raises(ValueError, match=f"unknown model '{name}'; {hint}"):
        build(settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_electrostatic_settings_go_with_charges(family):
    settings = tiny_settings(family)
    if family in CHARGED_FAMILIES:
        wrong = dataclasses.replace(settings, electrostatics=None)
        message = f"model {family} needs electrostatic settings"
    else:
        wrong = dataclasses.replace(settings, electrostatics=tiny_settings().electrostatics)
        message = f"model {family} has no electrostatic settings"
    with pytest.raises(ValueError, match=message):
        build(wrong)


def test_models_without_charges_need_no_reciprocal_vectors():
    assert tiny_settings("MACE").kspace_cutoff is None
    assert tiny_settings().kspace_cutoff == tiny_settings().electrostatics.kspace_cutoff
    open_boundary = dataclasses.replace(tiny_settings().electrostatics, boundary="realspace")
    settings = dataclasses.replace(tiny_settings(), electrostatics=open_boundary)
    assert settings.kspace_cutoff is None
