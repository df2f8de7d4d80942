"""Configurations of the examples and of the pages on families are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mace_scf_jax.models import CHARGED_FAMILIES
from mace_scf_jax.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_are_valid(path):
    options = TrainOptions(**yaml.safe_load(path.read_text()))
    assert options.without_effect == ()
    assert (path.parent / options.train_file).is_file()


def test_every_charged_family_has_an_example():
    models = {yaml.safe_load(path.read_text())["model"] for path in EXAMPLES}
    assert models == set(CHARGED_FAMILIES)


def test_the_configuration_of_plain_mace_is_complete():
    text = (ROOT / "docs" / "families" / "mace.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert TrainOptions(**yaml.safe_load(block)).model == "ScaleShiftMACE"
