"""Training modes of fixed-point models: gradients of losses, fallbacks, further outputs."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import molecule, periodic, random_parameters, structure, tiny_settings

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.sizes import required_sizes
from mace_scf_jax.models import build
from mace_scf_jax.scf import SolverStatus
from mace_scf_jax.training.loop.fixed_point_training import (
    FixedPointTraining,
    SCFOptions,
)
from mace_scf_jax.training.loop.modes import FURTHER_OUTPUTS, ModelMode, further_outputs
from mace_scf_jax.training.loop.scf_counts import SCFCounts, scf_counts
from mace_scf_jax.training.losses import weighted_loss

SETTINGS = tiny_settings("FixedPoint", correlation=1)
NONLINEAR = dataclasses.replace(
    SETTINGS,
    own=dataclasses.replace(SETTINGS.own, nonlinearity="MLPNonLinearity"),
)
STRUCTURES = [structure(atoms, SETTINGS) for atoms in (molecule(), periodic(), molecule(1))]
SIZES = required_sizes(STRUCTURES).rounded()
LOSS = {
    "energy_per_atom": 1.0,
    "forces": 10.0,
    "atomic_multipoles": 1.0,
    "dipole_per_atom": 1.0,
    "total_charge": 1.0,
}
WITH_FORCES = [False, pytest.param(True, marks=pytest.mark.slow)]
"""Forces in the loss ask for second derivatives, which take long to compile."""


def batch(*members):
    """A labelled batch of the sizes of all three structures, to compile nothing twice."""
    graph = collate([STRUCTURES[index] for index in members], SIZES)
    rng = np.random.default_rng(sum(members))
    labels, weights = dict(graph.labels), dict(graph.weights)
    for name in ("energy", "forces", "atomic_multipoles", "dipole"):
        labels[name] = 0.1 * rng.normal(size=labels[name].shape)
        weights[name] = np.ones_like(weights[name])
    multipoles = np.where(graph.atom_mask[:, None], labels["atomic_multipoles"], 0.0)
    labels["atomic_multipoles"] = multipoles
    levels = np.where(graph.graph_mask, -1.5, 0.0)
    graph = graph.replace(labels=labels, weights=weights, fermi_level=levels)
    return jax.tree.map(jnp.asarray, graph)


@functools.cache
def model():
    """A model whose charges answer to the Fermi level, and to each other, moderately."""
    module = build(NONLINEAR)
    params = random_parameters(module, batch(0, 1, 2))
    scaled = jax.tree.map(lambda leaf: 2.0 * leaf, params["density_update"])
    return module, {**params, "density_update": scaled}


@functools.cache
def local_outputs():
    """What the model gives without a field, as a compiled function."""
    module, params = model()
    return jax.jit(functools.partial(module.apply, {"params": params}))


def reachable(graph):
    """The batch with charges that the model takes on at levels near those of the batch."""
    more = jnp.where(graph.graph_mask, 1e-3, 0.0)
    return graph.replace(total_charge=local_outputs()(graph)["total_charge"] + more)


@functools.cache
def gradient(training, *, forces):
    """Compiled loss, its gradient for all parameters, and the counts, of a batch."""
    module, own_params = model()
    predict = ModelMode(module, training).predict
    terms = {name: weight for name, weight in LOSS.items() if forces or name != "forces"}

    def loss(params, graph):
        prediction = predict(params, graph, forces=forces, stress=False)
        return weighted_loss(terms, prediction, graph)[0], scf_counts(prediction, graph)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda graph, params=own_params: compiled(params, graph)


def training(mode, **scf):
    """Where the solver does not matter, the one that compiles fastest."""
    solver = "linear_mixing" if mode == "unroll_scf" else "dense"
    options = {"num_scf_steps": 100, "mixing_parameter": 0.5, "solver": solver} | scf
    return FixedPointTraining(mode=mode, scf=SCFOptions(**options))


def assert_same_gradients(found, expected, tolerance):
    largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(expected))

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * largest)

    jax.tree.map(check, found, expected)


def test_the_implicit_gradient_is_the_slope_of_the_loss():
    evaluate = gradient(training("implicit", scf_tolerance=1e-12), forces=False)
    graph, (module, params) = reachable(batch(0, 1)), model()
    (_, counts), found = evaluate(graph)
    assert SCFCounts.of(counts).unsolved == SCFCounts.of(counts).fallback == 0
    direction = random_parameters(module, graph, seed=1)

    def loss(step):
        moved = jax.tree.map(lambda value, change: value + step * change, params, direction)
        return float(evaluate(graph, moved)[0][0])

    h = 1e-4
    expected = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    products = jax.tree.map(jnp.vdot, found, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("constant_charge", [True, False])
def test_all_modes_have_the_gradient_of_the_solution(constant_charge):
    """With force losses, which need second derivatives, for a map that is not affine."""
    tight = {"scf_tolerance": 1e-12, "constant_charge": constant_charge}
    cases = {
        "unroll_scf": training("unroll_scf", **tight),
        "implicit": training("implicit", **tight),
        "linearize_solve": training("linearize_solve", **tight),
    }
    batches = [reachable(batch(*members)) for members in ((0,), (1, 2), (0, 1, 2))]
    for graph in batches:
        results = {name: gradient(case, forces=True)(graph) for name, case in cases.items()}
        (expected_loss, counts), expected = results.pop("unroll_scf")
        assert SCFCounts.of(counts).unsolved == 0
        assert expected_loss > 1e-3
        for (loss, counts), found in results.values():
            assert SCFCounts.of(counts).unsolved == SCFCounts.of(counts).fallback == 0
            np.testing.assert_allclose(loss, expected_loss, rtol=1e-8)
            assert_same_gradients(found, expected, 1e-6)


@pytest.mark.parametrize("forces", WITH_FORCES)
def test_a_structure_without_solution_falls_back_alone(forces):
    """Two structures start at their solutions, one starts too far away for the steps allowed."""
    exact = training("implicit", scf_tolerance=1e-12)
    graph = reachable(batch(0, 1, 2))
    module, params = model()
    solved = jax.jit(
        functools.partial(ModelMode(module, exact).predict, forces=False, stress=False)
    )(params, graph)
    far = jnp.arange(graph.num_graphs) == 1
    labels = {
        **graph.labels,
        "atomic_multipoles": jnp.where(
            far[graph.atom_graph][:, None],
            graph.labels["atomic_multipoles"],
            solved["multipoles"],
        ),
    }
    graph = graph.replace(
        labels=labels, fermi_level=jnp.where(far, graph.fermi_level, solved["fermi_level"])
    )
    few = gradient(
        training("implicit", num_scf_steps=2, scf_tolerance=1e-11, initial_density="from_data"),
        forces=forces,
    )
    (loss, counts), found = few(graph)
    assert SCFCounts.of(counts).fallback == 1
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    # without weight on it, nothing is left of the one that fell back
    without = graph.replace(config_weight=jnp.where(far, 0.0, graph.config_weight))
    (loss, counts), found = few(without)
    assert SCFCounts.of(counts).fallback == 1
    (expected_loss, _), expected = gradient(exact, forces=forces)(without)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-9)
    assert_same_gradients(found, expected, 1e-8)


def test_only_the_last_step_is_differentiated():
    """Forces are those of one step from the state after the steps before, held fixed."""
    graph = batch(0, 1)
    module, params = model()

    def prediction(graph, forces=True, **scf):
        stage = training("unroll_scf", constant_charge=False, **scf)
        predict = ModelMode(module, stage).predict
        return jax.jit(functools.partial(predict, forces=forces, stress=False))(params, graph)

    found = prediction(graph, num_scf_steps=4, use_autograd_forces=False)
    before = prediction(graph, forces=False, num_scf_steps=3)
    labels = {**graph.labels, "atomic_multipoles": before["multipoles"]}
    expected = prediction(
        graph.replace(labels=labels), num_scf_steps=2, initial_density="from_data"
    )
    for name in ("energy", "multipoles", "forces"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-10)
    assert np.max(np.abs(found["multipoles"] - before["multipoles"])) > 1e-6


def predictor(mode):
    """All outputs of a mode with all further ones, as a function of a batch."""
    module, params = model()
    scf = None if mode == "direct" else training(mode, scf_tolerance=1e-12).scf
    stage = FixedPointTraining(mode=mode, scf=scf, fixedpoint_scf_stability=True)
    predict = ModelMode(module, stage, further_outputs(stage)).predict
    return lambda graph: predict(params, graph, forces=False, stress=False)


@functools.cache
def further():
    """A batch, and all outputs of it at the solution."""
    graph = reachable(batch(0, 1))
    return graph, jax.jit(predictor("implicit"))(graph)


@pytest.mark.slow
def test_outputs_that_single_losses_ask_for():
    graph, outputs = further()
    assert outputs.keys() >= FURTHER_OUTPUTS
    mask = np.asarray(graph.atom_mask)
    np.testing.assert_array_equal(outputs["esps"], outputs["electrostatic_potentials"])
    assert np.max(np.abs(outputs["esps"] - outputs["esps_dft"])) > 1e-3
    np.testing.assert_array_equal(outputs["esps_dft"][~mask], 0.0)
    # features without Fermi level differ by its part, which is the same for all atoms of a graph
    difference = np.asarray(outputs["field_features"] - outputs["feats_no_mu_model"])[mask]
    expected = np.asarray(outputs["fermi_level"])[np.asarray(graph.atom_graph)[mask]] + 2.0
    np.testing.assert_allclose(
        difference[:, :2] / difference[0, :2], (expected / expected[0])[:, None] * [1.0, 1.0]
    )
    np.testing.assert_allclose(difference[:, 2:], 0.0, atol=1e-12)
    # at the solution one more step changes nothing
    history = outputs["charges_history"]
    np.testing.assert_array_equal(history[..., 0], outputs["multipoles"])
    np.testing.assert_allclose(history[..., 1], history[..., 0], atol=1e-10)


def test_the_answer_of_charges_to_the_fermi_level():
    """Summed over a graph, dq_dmu is the change of the charge in one step with the level."""
    graph, outputs = further()
    module, params = model()

    @jax.jit
    def charge(level):
        local = module.apply({"params": params}, graph, method="local")
        levels = graph.to_slots(level[graph.atom_graph])
        dense = graph.to_slots(outputs["multipoles"])
        step = module.apply({"params": params}, local, dense, levels, method="step")
        return jnp.sum(step[:, :, 0], axis=-1)

    h = 1e-4
    expected = (charge(outputs["fermi_level"] + h) - charge(outputs["fermi_level"] - h)) / (2 * h)
    actual = graph.sum_atoms(outputs["dq_dmu"])
    np.testing.assert_allclose(actual[:2], expected[:2], rtol=1e-6)


def test_perturbations_grow_by_the_largest_eigenvalue():
    graph, outputs = further()
    module, params = model()

    @jax.jit
    def jacobian(multipoles):
        local = module.apply({"params": params}, graph, method="local")
        levels = graph.to_slots(outputs["fermi_level"][graph.atom_graph])
        return jax.jacfwd(
            lambda p: module.apply({"params": params}, local, p, levels, method="step")
        )(multipoles)

    dense = graph.to_slots(outputs["multipoles"])
    matrix = np.asarray(jacobian(dense))[0, :, :, 0].reshape(dense[0].size, dense[0].size)
    largest = np.max(np.abs(np.linalg.eigvals(matrix)))
    own = np.flatnonzero(np.asarray(graph.atom_graph) == 0)
    growth = np.linalg.norm(outputs["perturbed_density"][own]) / np.linalg.norm(
        outputs["perturbing_vector"][own]
    )
    assert largest > 1e-4
    assert 0.5 * largest < growth < 2.0 * largest


def test_the_direct_mode_has_no_history():
    predict = predictor("direct")

    def outputs_and_counts(graph):
        outputs = predict(graph)
        return outputs, scf_counts(outputs, graph)

    outputs, counts = jax.eval_shape(outputs_and_counts, batch(0, 1))
    assert outputs.keys() & FURTHER_OUTPUTS == FURTHER_OUTPUTS - {"charges_history"}
    assert "scf_status" not in outputs
    assert counts == {}


@pytest.mark.parametrize("mode", ["direct", "implicit"])
def test_modes_name_what_they_predict(mode):
    module, params = model()
    scf = None if mode == "direct" else training(mode).scf
    of_stage = FixedPointTraining(mode=mode, scf=scf, fixedpoint_scf_stability=True)
    used = ModelMode(module, of_stage, further_outputs(of_stage))
    predicted = jax.eval_shape(
        lambda graph: used.predict(params, graph, forces=True, stress=True), batch(0, 1)
    )
    assert {*used.outputs(stress=True)} == predicted.keys()


def test_modes_that_are_alike_are_equal():
    module, _ = model()
    first, second = (ModelMode(module, training("implicit", num_scf_steps=7)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != ModelMode(module, training("implicit", num_scf_steps=8))


def test_counts_add_up_and_speak():
    graph = batch(0, 1, 2)
    status = jnp.asarray([0, 1, 2] + [3] * (graph.num_graphs - 3))
    prediction = {
        "scf_status": status,
        "scf_fallback": status == SolverStatus.DIVERGED,
        "scf_evaluations": jnp.full_like(status, 4),
    }
    counts = SCFCounts.of(jax.device_get(scf_counts(prediction, graph)))
    assert counts == SCFCounts(structures=3, max_steps=1, diverged=1, fallback=1, evaluations=12)
    minimised = {"solver_status": status, "solver_steps": jnp.full_like(status, 3)}
    counts_of_steps = SCFCounts.of(jax.device_get(scf_counts(minimised, graph)))
    assert counts_of_steps == SCFCounts(3, max_steps=1, diverged=1, evaluations=9)
    twice = counts + counts
    assert (twice.structures, twice.unsolved) == (6, 4)
    assert twice.sentence() == (
        "4 of 6 structures not self-consistent (2 max_steps, 2 diverged), 2 fell back to unroll_scf"
    )
    assert SCFCounts(structures=2, evaluations=9).sentence() == (
        "all 2 structures self-consistent, 4.5 evaluations each"
    )
