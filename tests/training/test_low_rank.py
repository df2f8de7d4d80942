"""Low-rank updates of the matrices of a start model: what is trained, what stays, what is saved."""

from __future__ import annotations

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from start_models import STAGE, drawn, options, prepared, start_settings, write_start
from tiny_system import TinyMode, tiny_model
from tiny_training import trainer

from mace_scf_jax import load_model
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.loop.checkpoints import CheckpointStore
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.optimise.low_rank import (
    Adapted,
    are_trained,
    merged,
    trained_sizes,
    with_low_rank_updates,
)
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.parameter_groups import parameter_name
from mace_scf_jax.training.run import train

RANK, ALPHA = 2, 3.0


def by_name(parameters):
    return {parameter_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(parameters)}


def adapted(parameters, *, new=(), **changes):
    taken_over = [name for name in by_name(parameters) if name not in new]
    given = {"rank": RANK, "alpha": ALPHA, "groups": None, "seed": 0} | changes
    return with_low_rank_updates(parameters, taken_over, **given)


def moved(parameters, by=0.1):
    """With other numbers where any are trained."""
    return jax.tree.map(
        lambda trained, leaf: leaf + by if trained else leaf, are_trained(parameters), parameters
    )


@pytest.fixture(scope="module")
def parameters():
    return drawn(start_settings())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("low_rank")
    write_start(folder)
    return folder


def test_first_weights_are_those_of_the_start_model(parameters):
    first = by_name(merged(adapted(parameters)))
    assert list(first) == list(by_name(parameters))
    for name, values in by_name(parameters).items():
        np.testing.assert_array_equal(first[name], values)


def test_updates_are_of_low_rank_and_all_else_stays(parameters):
    new = "backbone/readout_0/linear/degree_0"
    after = by_name(merged(moved(adapted(parameters, new=[new]))))
    for name, before in by_name(parameters).items():
        change = np.asarray(after[name] - before)
        if name == new:
            np.testing.assert_allclose(change, 0.1)
        elif before.ndim == 2:
            assert 0 < np.linalg.matrix_rank(change, tol=1e-12) <= RANK, name
        else:
            np.testing.assert_array_equal(change, 0.0)


def test_the_update_is_the_product(parameters):
    tree = moved(adapted(parameters))
    node = tree["backbone"]["product_0"]["linear"]["degree_0"]
    expected = node.start + ALPHA / RANK * np.asarray(node.down) @ np.asarray(node.up)
    np.testing.assert_allclose(node.value, expected, rtol=1e-14)
    assert node.down.shape == (4, RANK)
    assert tree["backbone"]["readout_0"]["linear"]["degree_0"].down.shape == (4, 1)


def test_the_spread_of_first_numbers_is_that_of_the_matrix():
    tree = {"backbone": {"embedding": {"weight": jnp.full((50, 40), 0.01)}}}
    (node,) = jax.tree.leaves(
        adapted(tree, rank=30), is_leaf=lambda node: isinstance(node, Adapted)
    )
    assert float(jnp.std(node.down)) == pytest.approx(0.01, rel=0.1)  # of 1500 numbers
    assert not node.up.any()


def test_groups_that_are_chosen(parameters):
    sizes = trained_sizes(adapted(parameters, groups=("products",)))
    assert list(sizes) == ["products"]
    # two layers; in the last one there are scalars alone
    assert sizes["products"] == (2 + 1) * RANK * (4 + 4)


def test_a_group_without_matrices_is_refused(parameters):
    radial = jax.tree.map(lambda leaf: leaf, parameters)
    radial["backbone"]["product_0"].pop("linear")
    radial["backbone"]["product_1"].pop("linear")
    with pytest.raises(ConfigurationError, match="found products, which have no matrices of the"):
        adapted(radial, groups=("products", "embedding"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 0}}, "lora: rank: expected a number of at least 1, found 0"),
        (
            {"lora": {"groups": ["productss"]}},
            "lora: groups: unknown parameter group 'productss'; did you mean 'products'?",
        ),
        ({"lora": {"ranks": 4}}, "did you mean 'rank'"),
        ({"lora": True, "start_from": None, "hidden_irreps": "2x0e"}, "needs 'start_from'"),
        ({"lora": {}, "optimizer": "levenberg_marquardt"}, "cannot be used with the optimizer"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, changes, message):
    with pytest.raises(ConfigurationError) as error:
        TrainOptions(**options(folder, **changes))
    assert message in str(error.value)


class AdaptedMode(TinyMode):
    """Takes parameters as they are trained, as the modes of models do."""

    def predict(self, params, graph, *, forces, stress):
        return super().predict(merged(params), graph, forces=forces, stress=stress)


@pytest.mark.parametrize("optimizer", ["adamw", "schedulefree", "lbfgs"])
def test_every_optimiser_keeps_the_start_model(tmp_path, optimizer):
    """Weight decay and moving averages too."""
    settings = OptimiserSettings(optimizer=optimizer, ema=True, weight_decay=0.1)
    tree = adapted(tiny_model(), new=["multipole_readout_0/kernel"], rank=1)
    run = trainer(tmp_path, parameters=tree, optimiser=settings, mode=AdaptedMode())
    stage = Stage(name="a", start=0, end=1, loss={"forces": 1.0}, lr=0.02)
    progress = run.run((stage,), fingerprint={})
    found, _ = run.best_parameters(progress, "a")
    for state in (found, run.state.parameters, run.state.average):
        for trained, name, before, after in zip(
            jax.tree.leaves(are_trained(tree)),
            by_name(tree),
            by_name(tree).values(),
            by_name(state).values(),
            strict=True,
        ):
            assert trained or np.array_equal(before, after), name
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), tree, run.state.parameters)
    assert changed["backbone"]["interaction_0"]["linear"]["kernel"].up


def test_a_run_that_is_killed_ends_as_one_that_is_not(folder, tmp_path, monkeypatch):
    """To the bit, and the file is that of an ordinary model, with the errors of the table."""
    given = options(
        folder,
        lora={"rank": 1, "groups": ["products", "interactions_decay"]},
        train_schedule={0: STAGE | {"end": 2, "lr": 0.01}},
    )
    programs, save, saved = Programs(), CheckpointStore.save, []

    def run(folder):
        result = train(given | {"work_dir": str(folder)}, programs=programs)
        return load_model(result.models["only"]), result.metrics["only"]["valid"]

    whole, errors = run(tmp_path / "whole")
    log = (tmp_path / "whole" / "logs" / "fine_run-123.log").read_text()
    # rank 1: 3 maps of products (4 to 4), 2 of messages (4 to 4) and 2 (8 to 4)
    assert "Low-rank updates: 64 numbers are trained in a model of 480: updates of 7 mat" in log

    def killed(*arguments):
        save(*arguments)
        saved.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointStore, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.setattr(CheckpointStore, "save", save)
    assert len(saved) == 1
    again, _ = run(tmp_path / "killed")
    valid = [ase.io.read(folder / "train.xyz", index) for index in (1, 5)]  # as the log says
    found = [
        (float(it["energy"]) - atoms.info["REF_energy"]) / len(atoms)
        for it, atoms in zip(whole.predict(valid), valid, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(errors["rmse_e_per_atom"], rel=1e-6)
    start = by_name(prepared(folder).parameters)
    for name, values in by_name(whole.parameters).items():
        np.testing.assert_array_equal(by_name(again.parameters)[name], values)
        is_updated = values.ndim == 2 and ("product_" in name or "/linear/" in name)
        is_updated &= "readout" not in name
        assert np.array_equal(values, start[name]) != is_updated, name
