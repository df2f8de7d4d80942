"""The options as a file and as a page: valid, complete, and the same as the typed options."""

from pathlib import Path

import pytest
import yaml

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.models import FAMILIES
from mace_scf_jax.training.config.option_reference import (
    EXAMPLES,
    default_configuration,
    reference_page,
)
from mace_scf_jax.training.config.options import TrainOptions, ineffective, matters_to, owners

PAGE = Path(__file__).parents[2] / "docs/reference/options.md"
OPTIONS = set(TrainOptions.model_fields)


def test_all_defaults_are_a_valid_configuration_that_changes_nothing():
    values = yaml.safe_load(default_configuration())
    assert set(values) == OPTIONS
    assert TrainOptions(**values) == TrainOptions(**EXAMPLES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_configuration_of_a_family_is_valid_and_has_what_matters_to_it(family):
    values = yaml.safe_load(default_configuration(family))
    options = TrainOptions(**values)
    assert options.model == family
    unmentioned = OPTIONS - set(values)
    backbone = options.backbone
    assert not any(matters_to(name, family=family, backbone=backbone) for name in unmentioned)
    assert all(matters_to(name, family=family, backbone=backbone) for name in values)
    given = {name: values[name] for name in options.model_fields_set & set(EXAMPLES)}
    given |= {"atomic_formal_charges": options.atomic_formal_charges, "model": family}
    given |= {"train_schedule": values["train_schedule"]}
    given |= {"descriptor": options.descriptor, "arch": options.arch}
    assert options == TrainOptions(**given)
    assert ineffective(options) == []


def test_what_a_family_predicts_decides_which_labels_the_examples_have():
    plain = yaml.safe_load(default_configuration())
    assert plain["E0s"] == "average"
    assert "atomic_multipoles" not in plain["heads"]["Default"]["arrays_keys"]
    charged = yaml.safe_load(default_configuration("LocalCharges"))
    assert "atomic_multipoles" in charged["heads"]["Default"]["arrays_keys"]
    assert "atomic_multipoles" in charged["train_schedule"][0]["loss"]


def test_families_leave_out_what_does_not_matter():
    plain = yaml.safe_load(default_configuration("MACE"))
    assert "kspace_cutoff_factor" not in plain
    assert "scaling" not in plain
    assert "r_max" in plain
    assert "scaling" in yaml.safe_load(default_configuration("ScaleShiftMACE"))
    assert "default_hardness" in yaml.safe_load(default_configuration("EnergyFunctional"))


def test_every_line_of_the_file_is_explained_and_short():
    lines = default_configuration().splitlines()
    assert max(len(line) for line in lines) <= 100
    for name in OPTIONS:
        (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{name}:")]
        assert lines[place - 1].startswith("# ")
    assert "# cutoff radius of the edges, in Å" in lines


def test_options_belong_to_families_and_backbones_that_exist():
    owned = {name: owners(name) for name in OPTIONS if owners(name) is not None}
    assert {name for names in owned.values() for name in names} <= {*FAMILIES, *BACKBONES}
    assert owned["scaling"] == ("ScaleShiftMACE", "PolarMACE")
    assert owned["default_hardness"] == ("MACEQEq", "EnergyFunctional")
    assert owned["max_ell"] == ("MACE",)
    assert "MACE" not in owned["kspace_cutoff_factor"]


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "the options have changed; run: mace-scf-jax config --reference > docs/reference/options.md"
    )


def test_the_page_names_every_option_once():
    page = reference_page()
    assert all(page.count(f"| `{name}` |") == 1 for name in OPTIONS)
