"""Optimisers with parameter groups, from optax parts.

The learning rates are an argument of each update (one per parameter group), not part of the
compiled step: stages and schedulers change them without recompilation. One chain of optax
transformations makes an update:

    clip by global norm -> [adam: L2 decay] -> adaptive scaling -> [adamw: decay] -> times -lr
    clip by global norm -> L2 decay -> momentum -> times -lr                           (sgd)

``adam`` adds the decay to the gradient (L2), ``adamw`` decouples it, ``schedulefree`` is
AdamW-ScheduleFree of optax.contrib. The one scaling that is not optax's is AMSGrad:
:func:`scale_by_amsgrad` says why.

``lbfgs`` knows no learning rate: a line search evaluates the loss along its direction. What it
remembers of the curvature is that of one loss over one set of structures. Neither does
``levenberg_marquardt``, whose steps are no function of a gradient
(:mod:`~mace_scf_jax.training.optimise.levenberg_marquardt`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from pydantic import BeforeValidator, Field

from mace_scf_jax.options.values import (
    NumberFromZero,
)
from mace_scf_jax.training.optimise.levenberg_marquardt import Damping
from mace_scf_jax.training.optimise.options import OptimiserOptions
from mace_scf_jax.training.optimise.parameter_groups import (
    Parameters,
    decayed_groups,
    group_labels,
)

LearningRates = Mapping[str, Float[Array, ""]]


def _pairs(decays: Any) -> Any:
    return tuple(decays.items()) if isinstance(decays, Mapping) else decays


class OptimiserSettings(OptimiserOptions):
    """How parameters are updated: the options, and what a model family adds to them"""

    group_weight_decays: Annotated[
        tuple[tuple[str, NumberFromZero], ...], BeforeValidator(_pairs)
    ] = Field(default=(), description="decays of groups that weight_decay does not apply to")

    def describe(self) -> str:
        """Tell in one line what matters."""
        decays = "".join(f", weight decay of {g} {d:g}" for g, d in self.group_weight_decays)
        average = f"decay {self.ema_decay:g}" if self.ema else "none"
        told = {
            "beta": f"beta {self.beta:g}",
            "beta_two": f"beta_two {self.beta_two:g}",
            "momentum": f"momentum {self.momentum:g}",
            "amsgrad": "amsgrad" if self.amsgrad else "",
            "lbfgs_memory": f"memory of {self.lbfgs_memory} steps",
            "weight_decay": f"weight decay {self.weight_decay:g}{decays}",
        }
        used = [text for name, text in told.items() if text and name not in self.unused]
        return f"{', '.join([self.optimizer, *used])}; moving average of the weights: {average}"


class AmsgradState(NamedTuple):
    """Moments of AMSGrad."""

    count: Int[Array, ""]
    first: Parameters
    second: Parameters
    largest_second: Parameters


def scale_by_amsgrad(
    beta: float, beta_two: float, epsilon: float = 1e-8
) -> optax.GradientTransformation:
    """AMSGrad as PyTorch defines it: the maximum is over the second moments before bias correction.

    With m, v the moments after t steps and v̂_t = max(v̂_(t-1), v_t), the update is
    (m / (1 - β₁ᵗ)) / (sqrt(v̂_t / (1 - β₂ᵗ)) + ε).

    ``optax.scale_by_amsgrad`` by default takes the maximum of the bias-corrected moments instead.
    Its first one is the square of the first gradient at full size, which is usually by far the
    largest of a run and then divides all later updates; here it enters with a factor 1 - β₂.

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond" (2018), with the bias
    correction of ``torch.optim.Adam(amsgrad=True)``.
    """

    def init(params: Parameters) -> AmsgradState:
        return AmsgradState(
            jnp.zeros((), jnp.int32), *(optax.tree.zeros_like(params) for _ in range(3))
        )

    def update(gradients, state, params=None):
        del params
        count = state.count + 1
        first = optax.tree.update_moment(gradients, state.first, beta, 1)
        second = optax.tree.update_moment(gradients, state.second, beta_two, 2)
        largest = jax.tree.map(jnp.maximum, state.largest_second, second)
        updates = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + epsilon),
            optax.tree.bias_correction(first, beta, count),
            optax.tree.bias_correction(largest, beta_two, count),
        )
        return updates, AmsgradState(count, first, second, largest)

    return optax.GradientTransformation(init, update)


def scale_by_group_learning_rate(labels: Any) -> optax.GradientTransformationExtraArgs:
    """Multiply each update by minus the learning rate of its group.

    Args:
        labels: tree of group names, as of :func:`group_labels`.

    Returns:
        A transformation whose update takes ``learning_rates``, a mapping from group to rate.
    """

    def update(updates, state, params=None, *, learning_rates: LearningRates, **_):
        del params
        scaled = jax.tree.map(
            lambda label, value: -learning_rates[label].astype(value.dtype) * value,
            labels,
            updates,
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def build_optimiser(
    settings: OptimiserSettings, params: Parameters
) -> optax.GradientTransformationExtraArgs:
    """The optimiser for one set of parameters.

    Args:
        settings: kind and numbers.
        params: the parameters; only their names are used.

    Returns:
        An optax transformation whose ``update`` takes ``learning_rates=`` (group -> rate), and
        ``value=``, ``grad=`` and ``value_fn=`` (parameters -> loss), which only ``lbfgs`` reads.

    Raises:
        ParameterGroupError: a parameter belongs to no group.
    """
    labels = group_labels(params)
    if settings.optimizer == "lbfgs":
        return _promoting(lbfgs(settings.lbfgs_memory))
    decay = _weight_decay(settings, labels)
    rates = scale_by_group_learning_rate(labels)
    if settings.optimizer == "schedulefree":
        base = optax.chain(
            optax.scale_by_rms(
                decay=settings.beta_two, eps=1e-8, eps_in_sqrt=False, bias_correction=True
            ),
            decay,
            rates,
        )
        core = schedule_free(base, settings.beta)
    elif settings.optimizer == "sgd":
        core = optax.chain(decay, optax.trace(decay=settings.momentum), rates)
    else:
        scale = scale_by_amsgrad if settings.amsgrad else optax.scale_by_adam
        scaling = scale(settings.beta, settings.beta_two)
        parts = (decay, scaling) if settings.optimizer == "adam" else (scaling, decay)
        core = optax.chain(*parts, rates)
    if settings.clip_grad is not None:
        core = optax.chain(optax.clip_by_global_norm(settings.clip_grad), core)
    return _promoting(core)


def _weight_decay(settings: OptimiserSettings, labels: Any) -> optax.GradientTransformation:
    """Decay of every group by its own number.

    Args:
        settings: the numbers.
        labels: the tree of parameters with the group of each.
    """
    common = dict.fromkeys(decayed_groups(), settings.weight_decay)
    decays = common | dict(settings.group_weight_decays)

    def part(decay: float) -> optax.GradientTransformation:
        mask = jax.tree.map(lambda label: decays.get(label) == decay, labels)
        return optax.add_decayed_weights(decay, mask=mask)

    parts = [part(decay) for decay in sorted(set(decays.values()))]
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def schedule_free(
    base: optax.GradientTransformationExtraArgs, beta: float
) -> optax.GradientTransformationExtraArgs:
    """``optax.contrib.schedule_free`` with learning rates given at each update.

    The weights of the average follow the largest learning rate of all groups.

    Source: Defazio et al., "The road less scheduled", arXiv:2405.15682.
    """

    def init(params):
        return optax.contrib.schedule_free(base, learning_rate=1.0, b1=beta).init(params)

    def update(gradients, state, params, *, learning_rates: LearningRates, **_):
        largest = jnp.max(jnp.stack(list(learning_rates.values()))).astype(state.max_lr.dtype)
        transformation = optax.contrib.schedule_free(base, learning_rate=largest, b1=beta)
        return transformation.update(gradients, state, params, learning_rates=learning_rates)

    return optax.GradientTransformationExtraArgs(init, update)


def lbfgs(memory: int) -> optax.GradientTransformationExtraArgs:
    """``optax.lbfgs`` with its line search, which has no use for learning rates.

    Source: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Math.
    Program. 45, 503 (1989).

    Args:
        memory: number of steps that the curvature is taken from.
    """
    transformation = optax.lbfgs(memory_size=memory)

    def update(gradients, state, params, *, learning_rates: LearningRates, **loss):
        del learning_rates
        return transformation.update(gradients, state, params, **loss)

    return optax.GradientTransformationExtraArgs(transformation.init, update)


def first_state(settings: OptimiserSettings, params: Parameters) -> Any:
    """State of the optimiser before the first step.

    Args:
        settings: kind and numbers.
        params: the parameters.
    """
    if settings.sums_over_batches:
        return Damping.first()
    return build_optimiser(settings, params).init(params)


def evaluation_parameters(
    settings: OptimiserSettings, params: Parameters, state: Any, average: Parameters | None
) -> Parameters:
    """The parameters to validate and to keep.

    The moving average where there is one, else the averaged sequence of ``schedulefree``, else the
    parameters as they are.

    Args:
        settings: the settings that the optimiser was built with.
        params: current parameters.
        state: state of the optimiser.
        average: the moving average, or None.
    """
    if average is not None:
        return average
    if settings.optimizer == "schedulefree":
        (found,) = [
            leaf
            for leaf in jax.tree.leaves(state, is_leaf=_is_schedule_free)
            if _is_schedule_free(leaf)
        ]
        averaged = optax.contrib.schedule_free_eval_params(found, params)
        # what was never changed is the same in all three sequences, not only up to rounding
        return jax.tree.map(lambda x, y, z: jnp.where(y == z, y, x), averaged, params, found.z)
    return params


def at_start_of_stage(settings: OptimiserSettings, params: Parameters, state: Any) -> Any:
    """State of the optimiser when the loss changes: it goes on, unless it is about one loss.

    Args:
        settings: that it was built with.
        params: current parameters.
        state: at the end of the stage before.
    """
    return first_state(settings, params) if settings.has_one_loss else state


def moving_average(
    average: Parameters, params: Parameters, updates_done: Int[Array, ""], decay: float
) -> Parameters:
    """Exponential moving average of the parameters after one more optimiser step.

    With n the number of updates including this one, the decay is min(decay, (1 + n) / (10 + n)),
    so that the average forgets the initial parameters quickly.

    Args:
        average: the average so far; the initial parameters before the first update.
        params: the new parameters.
        updates_done: number of updates done before this one.
        decay: decay for large n.
    """
    number = (updates_done + 1).astype(jnp.float64)
    step = 1.0 - jnp.minimum(decay, (1.0 + number) / (10.0 + number))
    return jax.tree.map(
        lambda mean, new: mean + step.astype(mean.dtype) * (new - mean), average, params
    )


def _promoting(
    transformation: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """The transformation under JAX's standard type promotion: optax mixes int and float scalars."""

    def update(*arguments, **options):
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(*arguments, **options)

    return optax.GradientTransformationExtraArgs(transformation.init, update)


def _is_schedule_free(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)
