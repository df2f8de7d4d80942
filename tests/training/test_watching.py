"""Norms and histograms of a made-up gradient, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mace_scf_jax.training.loop.options import WatchOptions
from mace_scf_jax.training.loop.watching import Watched, summary, watch

PARAMETERS = {
    "backbone": {"embedding": {"w": jnp.array([3.0, 0.0])}, "product_0": {"w": jnp.array([4.0])}}
}
GRADIENT = {
    "backbone": {"embedding": {"w": jnp.array([0.0, 0.0])}, "product_0": {"w": jnp.array([-0.5])}}
}


def test_norms_altogether_and_of_each_group():
    found = {name: float(value) for name, value in summary(GRADIENT, PARAMETERS).items()}
    assert found == {
        "grad/global_norm": 0.5,
        "grad/global_max_abs": 0.5,
        "grad/nonfinite_count": 0.0,
        "grad/none_param_count": 1.0,
        "param/global_norm": 5.0,
        "grad/param_norm_ratio": 0.1,
        "grad/norm/embedding": 0.0,
        "grad/norm/products": 0.5,
        "param/norm/embedding": 3.0,
        "param/norm/products": 4.0,
    }


def look(gradient, step, **options):
    return Watched.of(
        watch(
            WatchOptions(wandb_watch_log_freq=10, **options), gradient, PARAMETERS, jnp.array(step)
        )
    )


def test_steps_between_two_looks_are_left_out():
    assert look(GRADIENT, 11, debug_log_grad_summary=True) is None
    assert look(GRADIENT, 10, debug_log_grad_summary=True).step == 10
    assert look(GRADIENT, 10) is None


def test_a_gradient_that_is_not_finite_is_always_looked_at():
    product = {"w": jnp.array([jnp.nan])}
    bad = {"backbone": {**GRADIENT["backbone"], "product_0": product}}
    seen = look(bad, 11, debug_log_grad_summary=True)
    assert seen.groups_out_of_bounds() == ("products",)
    assert seen.numbers["grad/nonfinite_count"] == 1.0


def test_histograms():
    seen = look(GRADIENT, 0, wandb_watch="all").histograms
    assert set(seen) == {
        f"{kind}/{group}"
        for kind in ("gradients", "parameters")
        for group in ("embedding", "products")
    }
    for found, expected in zip(
        seen["parameters/embedding"], np.histogram([3.0, 0.0], bins=64), strict=True
    ):
        np.testing.assert_allclose(found, expected)
    assert set(look(GRADIENT, 0, wandb_watch="parameters").histograms) == {
        "parameters/embedding",
        "parameters/products",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wandb_watch": "weights"}, "found 'weights'"),
        ({"wandb_watch_log_freq": 0}, "wandb_watch_log_freq: expected a number of at least 1"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        WatchOptions(**changes)
