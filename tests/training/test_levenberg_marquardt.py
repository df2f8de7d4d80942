"""Levenberg–Marquardt steps, against derivatives of the whole and exact solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import tiny_batches, tiny_data
from tiny_training import Recorder, trainer

from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.whole_set import WholeLoss
from mace_scf_jax.training.losses import Mean
from mace_scf_jax.training.optimise.levenberg_marquardt import (
    Curvature,
    Damping,
    curvature,
    trials,
)
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings

SETTINGS = OptimiserSettings(optimizer="levenberg_marquardt")
FINGERPRINT = {"data": "tiny"}
BATCHES = tiny_batches()
LOSS = {"energy_per_atom": 1.0, "forces": 0.5}
STAGES = (
    Stage(name="first", start=0, end=3, loss=LOSS),
    Stage.read({"name": "second", "start": 4, "end": 7, "force_weight": 0.5}),
)


def run(folder, batches=BATCHES, stages=STAGES, **options):
    recorder = Recorder()
    found = trainer(
        folder,
        data=tiny_data(batches, training=lambda epoch: batches),
        optimiser=SETTINGS,
        observer=options.pop("observer", recorder),
        **options,
    )
    progress = found.run(stages, fingerprint=FINGERPRINT)
    return found, progress, recorder


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return run(tmp_path_factory.mktemp("complete"))


def test_curvature_is_made_of_the_whole_jacobian():
    rng = np.random.default_rng(0)
    weights = {"a": jnp.asarray(rng.normal(size=(2, 5))), "b": jnp.asarray(rng.normal(size=3))}
    inputs, target = jnp.asarray(rng.normal(size=(7, 2))), jnp.asarray(rng.normal(size=7))

    def predict(parameters):
        hidden = jnp.tanh(inputs @ parameters["a"])[:, :3]
        return {"one": hidden @ parameters["b"], "other": jnp.sum(hidden**2)}

    def loss(outputs):
        return jnp.sum((outputs["one"] - target) ** 4) + 3.0 * (outputs["other"] - 1.0) ** 2

    found = curvature(predict, loss, weights)
    flat, tree_of = jax.flatten_util.ravel_pytree(weights)
    values, of_values = jax.flatten_util.ravel_pytree(predict(weights))
    jacobian = jax.jacrev(lambda v: jax.flatten_util.ravel_pytree(predict(tree_of(v)))[0])(flat)
    hessian = jax.hessian(lambda y: loss(of_values(y)))(values)
    whole = jax.grad(lambda v: loss(predict(tree_of(v))))(flat)
    np.testing.assert_allclose(found.gradient, whole, rtol=1e-12)
    expected = jacobian.T @ hessian @ jacobian
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-10, atol=1e-10)


def test_the_step_without_damping_solves_a_linear_problem():
    rng = np.random.default_rng(1)
    design, target = rng.normal(size=(20, 4)), rng.normal(size=20)
    known = Curvature(-2.0 * design.T @ target, 2.0 * design.T @ design)
    damping = Damping(jnp.asarray(0.0), jnp.asarray(2.0))
    trial = next(trials(known, damping))
    solution, (left,) = np.linalg.lstsq(design, target, rcond=None)[:2]
    np.testing.assert_allclose(trial.step, solution, rtol=1e-10)
    assert trial.decrease == pytest.approx(target @ target - left, rel=1e-10)


def test_damping_grows_until_a_step_is_taken_and_falls_where_the_model_is_right():
    known = Curvature(np.array([1.0, 0.0]), np.diag([2.0, 1.0]))
    lengths = [np.linalg.norm(trial.step) for trial in trials(known, Damping.first())]
    assert len(lengths) == 20
    assert lengths == sorted(lengths, reverse=True)
    first = Damping.first()
    assert first.after_success(1.0).damping == pytest.approx(float(first.damping) / 3.0)
    assert first.after_success(0.1).damping > first.damping
    failed = first.after_failure().after_failure()
    assert failed.damping == pytest.approx(8.0 * float(first.damping))


@pytest.mark.parametrize("rooted", [False, True])
def test_the_loss_of_the_whole_set_and_its_derivatives_by_totals(rooted):
    def loss(totals):
        means = {name: Mean(totals[name], 5.0, rooted) for name in totals}
        return WholeLoss.of(means, {"a": 2.0, "b": 3.0})

    totals, step = {"a": 7.0, "b": 11.0}, 1e-6
    for name in totals:
        moved = [loss(totals | {name: totals[name] + sign * step}).value for sign in (1, -1)]
        slope = (moved[0] - moved[1]) / (2.0 * step)
        assert loss(totals).factors[name] == pytest.approx(slope, rel=1e-8)


def test_each_epoch_is_a_step_that_lowers_the_loss(complete):
    _, progress, recorder = complete
    assert len(recorder.steps) == progress.epoch == 8
    for stage in STAGES:
        losses = [record.loss for record in recorder.steps if record.stage == stage.name]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]
    assert recorder.steps[0].loss == pytest.approx(sum(recorder.steps[0].terms.values()))


def test_it_does_not_matter_how_the_set_is_cut_into_batches(complete, tmp_path):
    other = run(tmp_path, [BATCHES[2], BATCHES[0], BATCHES[3], BATCHES[1]])[2]
    np.testing.assert_allclose(
        [record.loss for record in other.steps[:4]],
        [record.loss for record in complete[2].steps[:4]],
        rtol=1e-6,
    )


def test_a_resumed_run_ends_with_the_same_state(complete, tmp_path):
    run(tmp_path, stages=STAGES[:1])
    resumed, progress, _ = run(tmp_path)
    assert progress == complete[1]
    jax.tree.map(np.testing.assert_array_equal, resumed.state, complete[0].state)


def test_it_is_told_without_learning_rates():
    assert not SETTINGS.has_learning_rates
    assert SETTINGS.largest_gradient is None
    assert SETTINGS.describe() == "levenberg_marquardt; moving average of the weights: none"
