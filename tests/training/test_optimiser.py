import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import tiny_settings
from tiny_system import tiny_graph

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.backbones.mace.choices import INTERACTIONS
from mace_scf_jax.models import FAMILIES, build
from mace_scf_jax.training.optimise.optimiser import (
    OptimiserSettings,
    build_optimiser,
    evaluation_parameters,
    moving_average,
)
from mace_scf_jax.training.optimise.parameter_groups import (
    ParameterGroupError,
    group_labels,
    group_sizes,
    parameter_groups,
)

REFERENCE = np.load(
    Path(__file__).parents[1] / "data" / "reference" / "training" / "optimisers.npz"
)
SETTINGS = json.loads(str(REFERENCE["meta"]))
STEPS = len(REFERENCE["in/gradient/embedding"])


def tree(values):
    """The three parameters of the reference, placed where their group is."""
    return {
        "backbone": {
            "embedding": {"kernel": values["embedding"]},
            "interaction_0": {"linear": {"kernel": values["interactions_decay"]}},
        },
        "multipole_readout_0": {"kernel": values["lr_source_maps"]},
    }


def reference_tree(kind, step=None):
    values = {}
    for name in ("embedding", "interactions_decay", "lr_source_maps"):
        array = REFERENCE[f"{kind}/{name}"]
        values[name] = jnp.asarray(array if step is None else array[step])
    return tree(values)


def learning_rates(step, *, changing=True):
    if step < SETTINGS["lr_change_at"] or not changing:
        rates = dict.fromkeys(parameter_groups(), SETTINGS["lr"])
    else:
        after = SETTINGS["lr_after"]
        rates = {group: after.get(group, after["default"]) for group in parameter_groups()}
    return {group: jnp.asarray(rate) for group, rate in rates.items()}


def settings_for(optimizer, **changes):
    beta, beta_two = SETTINGS["betas"]
    values = {"weight_decay": SETTINGS["weight_decay"], "clip_grad": None}
    return OptimiserSettings(
        optimizer=optimizer, beta=beta, beta_two=beta_two, **(values | changes)
    )


def trajectory(settings, *, changing=True):
    """Parameters and optimiser state after each step with the gradients of the reference."""
    params = reference_tree("in/initial")
    optimiser = build_optimiser(settings, params)
    update = jax.jit(optimiser.update)
    state = optimiser.init(params)
    for step in range(STEPS):
        rates = learning_rates(step, changing=changing)
        updates, state = update(
            reference_tree("in/gradient", step), state, params, learning_rates=rates
        )
        params = optax.apply_updates(params, updates)
        yield params, state


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14), found, expected
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [True, False])
def test_steps_equal_pytorch(optimizer, amsgrad):
    kind = f"out/{optimizer}_{'amsgrad' if amsgrad else 'plain'}"
    for step, (params, _) in enumerate(trajectory(settings_for(optimizer, amsgrad=amsgrad))):
        assert_close(params, reference_tree(kind, step))


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_gradient_descent_as_pytorch_defines_it(momentum):
    """g ← g + λp, b ← μb + g, p ← p - lr b (torch.optim.SGD without dampening)."""
    settings = settings_for("sgd", momentum=momentum)
    expected = reference_tree("in/initial")
    directions = jax.tree.map(np.zeros_like, expected)
    groups = group_labels(expected)
    decays = jax.tree.map(
        lambda group: SETTINGS["weight_decay"] if group == "interactions_decay" else 0.0, groups
    )
    for step, (params, _) in enumerate(trajectory(settings)):
        rates = learning_rates(step)
        gradient = reference_tree("in/gradient", step)
        directions = jax.tree.map(
            lambda b, g, decay, p: momentum * b + g + decay * p,
            *(directions, gradient, decays, expected),
        )
        expected = jax.tree.map(
            lambda p, b, group, rates=rates: p - rates[group] * b, expected, directions, groups
        )
        assert_close(params, expected)


def curved(params):
    """A quadratic of condition 100, with its minimum 0 where every number is 1."""
    vector = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    scales = jnp.logspace(0.0, 2.0, vector.size)
    return 0.5 * jnp.sum(scales * (vector - 1.0) ** 2)


def descend(settings, params, steps):
    optimiser = build_optimiser(settings, params)
    rates = {group: jnp.asarray(np.nan) for group in parameter_groups()}

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(curved)(params)
        further = {"value": value, "grad": gradient, "value_fn": curved}
        updates, state = optimiser.update(gradient, state, params, learning_rates=rates, **further)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def test_lbfgs_finds_a_minimum_without_learning_rate():
    start = reference_tree("in/initial")
    found = descend(OptimiserSettings(optimizer="lbfgs"), start, 60)
    assert curved(found) < 1e-12 * curved(start)
    short = OptimiserSettings(optimizer="lbfgs", lbfgs_memory=1)
    assert curved(descend(short, start, 60)) > curved(found), "with less memory"


def test_options_that_an_optimiser_does_not_use():
    assert OptimiserSettings(optimizer="lbfgs").largest_gradient is None
    assert OptimiserSettings(optimizer="sgd").largest_gradient == 10.0
    sgd = OptimiserSettings(optimizer="sgd", momentum=0.9)
    assert sgd.unused == {"beta", "beta_two", "amsgrad", "lbfgs_memory"}
    assert sgd.describe().startswith("sgd, momentum 0.9, weight decay 5e-07;")
    assert OptimiserSettings(optimizer="lbfgs").describe().startswith("lbfgs, memory of 10 steps;")


def test_schedule_free_equals_its_reference_package():
    settings = settings_for("schedulefree")
    for step, (params, state) in enumerate(trajectory(settings, changing=False)):
        assert_close(params, reference_tree("out/schedulefree", step))
        averaged = evaluation_parameters(settings, params, state, None)
        assert_close(averaged, reference_tree("out/schedulefree_evaluation", step))


def test_moving_average_equals_torch_ema():
    average = reference_tree("in/initial")
    for step in range(STEPS):
        params = reference_tree("out/adam_amsgrad", step)
        average = moving_average(average, params, jnp.asarray(step), SETTINGS["ema_decay"])
        assert_close(average, reference_tree("out/average", step))
    assert evaluation_parameters(settings_for("adam"), params, (), average) is average
    assert evaluation_parameters(settings_for("adam"), params, (), None) is params


def test_amsgrad_takes_the_maximum_before_bias_correction():
    """Two steps by hand: gradients 1 and 0, beta 0, beta_two 0.5, rate 1.

    v = 0.5, then 0.25; the maximum stays 0.5; divided by 1 - 0.5² = 0.75. The first update is
    -1 / sqrt(0.5 / 0.5) = -1; the second has no first moment. A third gradient of 1 gives
    v = 0.625 and -1 / sqrt(0.625 / 0.875).
    """
    params = {"multipole_readout_0": {"kernel": jnp.zeros(1)}}
    settings = OptimiserSettings(
        optimizer="adam", beta=0.0, beta_two=0.5, amsgrad=True, clip_grad=None
    )
    optimiser = build_optimiser(settings, params)
    rates = {group: jnp.ones(()) for group in parameter_groups()}
    state = optimiser.init(params)
    found = []
    for gradient in (1.0, 0.0, 1.0):
        tree_of_gradient = jax.tree.map(lambda leaf, g=gradient: jnp.full_like(leaf, g), params)
        updates, state = optimiser.update(tree_of_gradient, state, params, learning_rates=rates)
        found.append(updates["multipole_readout_0"]["kernel"].item())
    assert found == pytest.approx([-1.0, 0.0, -np.sqrt(0.875 / 0.625)], rel=1e-7)


@pytest.mark.parametrize("optimizer", ["adam", "schedulefree"])
def test_clipping_is_by_global_norm_and_comes_first(optimizer):
    params = reference_tree("in/initial")
    gradient = reference_tree("in/gradient", 0)
    norm = float(optax.tree.norm(gradient))
    assert norm > 2.0
    updates = {}
    for clip, scale in ((2.0, 1.0), (None, 2.0 / norm), (2.0 * norm, 2.0 / norm)):
        optimiser = build_optimiser(settings_for(optimizer, clip_grad=clip), params)
        scaled = jax.tree.map(lambda leaf, scale=scale: scale * leaf, gradient)
        updates[clip], _ = optimiser.update(
            scaled, optimiser.init(params), params, learning_rates=learning_rates(0)
        )
    assert_close(updates[2.0], updates[None])
    assert_close(updates[2.0 * norm], updates[None])


def test_every_parameter_has_the_group_of_the_reference():
    names = {
        "backbone/embedding/weight": "embedding",
        "backbone/interaction_0/linear/degree_1": "interactions_decay",
        "backbone/interaction_1/linear_up/degree_0": "interactions_no_decay",
        "backbone/interaction_10/radial/layer_0": "interactions_no_decay",
        "backbone/interaction_0/skip/degree_1": "interactions_no_decay",
        "backbone/interaction_0/density/layer_0": "interactions_no_decay",
        "backbone/product_1/linear/degree_0": "products",
        "backbone/product_1/contraction/degree_0_order_2": "products",
        "backbone/readout_0/linear/degree_0": "readouts",
        "multipole_readout_1/linear/degree_0": "lr_source_maps",
    }
    params: dict = {}
    for name in names:
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.zeros(1)
    labels = {
        jax.tree_util.keystr(path, simple=True, separator="/"): label
        for path, label in jax.tree_util.tree_leaves_with_path(group_labels(params))
    }
    assert labels == names


SOURCES = {
    "lr_source_maps": ("LocalCharges", "LocalSplitCharges", "FixedPoint", "PolarMACE"),
    "polarizability_readouts": ("LocalSplitCharges",),
    "oxidation_state_mixer": ("LocalSplitCharges",),
    "enegs_readouts": ("MACEQEq",),
    "hardness_readouts": ("MACEQEq",),
    "functional_readouts": ("EnergyFunctional",),
    "field_dependent_charges_map": ("FixedPoint", "PolarMACE"),
    "local_electron_energy": ("FixedPoint", "PolarMACE"),
    "layer_feature_mixer": ("FixedPoint", "PolarMACE"),
}
"""Groups that not every family has, and the families that have them."""


@pytest.mark.parametrize(
    ("family", "interaction"),
    sorted(
        {(family, "RealAgnosticResidualInteractionBlock") for family in FAMILIES}
        | {("MACE", interaction) for interaction in INTERACTIONS}
    ),
)
def test_every_parameter_of_every_model_has_a_group(family, interaction):
    blocks = {"interaction": interaction, "interaction_first": interaction, "num_interactions": 2}
    settings = tiny_settings(family, **(blocks if FAMILIES[family].backbone == "MACE" else {}))
    parameters = jax.eval_shape(build(settings).init, jax.random.key(0), tiny_graph(0))["params"]
    found = set(jax.tree.leaves(group_labels(parameters)))
    of_backbone = {group.name for group in BACKBONES[settings.backbone.name].groups.values()}
    if INTERACTIONS[interaction].nonlinear:
        of_backbone.remove("interactions_decay")
    assert found == of_backbone | {
        group for group, families in SOURCES.items() if family in families
    }
    assert found <= set(parameter_groups())


def test_sizes_of_the_groups_that_have_parameters():
    params = tree(
        {
            "lr_source_maps": np.zeros(2),
            "interactions_decay": np.zeros((2, 4)),
            "embedding": np.zeros(3),
        }
    )
    sizes = {"embedding": 3, "interactions_decay": 8, "lr_source_maps": 2}
    assert list(group_sizes(params).items()) == list(sizes.items())


def test_a_parameter_without_group_is_named():
    with pytest.raises(ParameterGroupError, match=r"'backbone/mixer_0/kernel' belongs to no"):
        build_optimiser(OptimiserSettings(), {"backbone": {"mixer_0": {"kernel": np.zeros(1)}}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "lamb"},
            "optimizer: expected 'adam', 'adamw', 'schedulefree', 'sgd', 'lbfgs' or "
            "'levenberg_marquardt', found 'lamb'",
        ),
        ({"beta": 1.0}, "beta: expected a number below 1, found 1.0"),
        ({"optimizer": "schedulefree", "beta": 0.0}, "above 0 for the schedulefree optimizer"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, found -1.0"),
        ({"clip_grad": 0.0}, "clip_grad: expected a number above 0, found 0.0"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number below 1, found 1.0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimiserSettings(**changes)
