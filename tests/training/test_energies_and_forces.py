"""Charges learn from energies and forces alone, in every family, with the default options."""

from __future__ import annotations

import re
from pathlib import Path

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from ase.io import write
from tiny_models import SMALL_TRAINING

from mace_scf_jax.models import FAMILIES
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.losses import weighted_loss
from mace_scf_jax.training.preparation import prepare_run
from mace_scf_jax.training.run import train

PAGE = Path(__file__).parents[2] / "docs/how_to/energies_and_forces.md"
SMALL = SMALL_TRAINING | {"kspace_cutoff_factor": 0.5}


def water(index: int) -> ase.Atoms:
    rng = np.random.default_rng(index)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    atoms = ase.Atoms("OH2", positions + rng.normal(scale=0.05, size=(3, 3)))
    atoms.info["REF_energy"] = -14.0 + rng.normal(scale=0.1)
    atoms.arrays["REF_forces"] = rng.normal(scale=0.3, size=(3, 3))
    return atoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("water")
    write(folder / "train.xyz", [water(index) for index in range(5)], format="extxyz")
    return folder


def options_of_page(folder: Path, **changes) -> TrainOptions:
    """The configuration of the page, with a small model."""
    text = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    files = {"train_file": folder / "train.xyz", "work_dir": folder}
    return TrainOptions(**yaml.safe_load(text) | files | SMALL | changes)


def test_the_configuration_of_the_page_is_ready_to_train(folder, capsys):
    options = options_of_page(folder, dry_run=True)
    before = sorted(folder.iterdir())
    result = train(options)
    assert (result.models, result.metrics, result.history.rows) == ({}, {}, ())
    assert sorted(folder.iterdir()) == before
    told = capsys.readouterr().err
    assert "all are taken as neutral" in told
    assert "Dry run: options, data, labels, losses and model are in order" in told


LEARNED = [name for name, family in FAMILIES.items() if family.is_charged and family.groups]


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name == "LocalSplitCharges" else pytest.mark.slow)
        for name in LEARNED
    ],
)
def test_the_first_step_moves_the_charges(family, folder):
    """The gradient of an energy loss by the weights that give the charges is no zero."""
    options = options_of_page(folder, model=family)
    run = prepare_run(options)
    mode = run.modes(options.train_schedule[0])
    graph = jax.tree.map(jnp.asarray, next(iter(run.training.undivided().epoch(0))))

    def loss(parameters):
        outputs = mode.predict(parameters, graph, forces=False, stress=False)
        return weighted_loss({"energy_per_atom": 1.0}, outputs, graph)[0]

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(run.parameters))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in gradients]
    of_charges = [
        float(jnp.abs(gradient).max())
        for name, (_, gradient) in zip(names, gradients, strict=True)
        if any(re.match(pattern, name) for pattern in FAMILIES[family].groups)
    ]
    assert max(of_charges) > 1e-8
