"""Options of optimisers and learning rates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.options import DecidesWeights, OptionGroup
from mace_scf_jax.options.values import (
    NoneInText,
    Number,
    NumberFromZero,
    PositiveNumber,
    PositiveWholeNumber,
    WholeNumberFromZero,
)

_ADAM = frozenset({"beta", "beta_two", "weight_decay", "clip_grad"})
_OPTIONS_OF = {
    "adam": _ADAM | {"amsgrad"},
    "adamw": _ADAM | {"amsgrad"},
    "schedulefree": _ADAM,
    "sgd": frozenset({"momentum", "weight_decay", "clip_grad"}),
    "lbfgs": frozenset({"lbfgs_memory"}),
    "levenberg_marquardt": frozenset(),
}
"""Which options each optimiser uses, of those that not all do."""
OPTIMISERS = tuple(_OPTIONS_OF)


class OptimiserOptions(OptionGroup):
    """Optimizer"""

    optimizer: Literal[OPTIMISERS] = Field(  # type: ignore[valid-type]
        default="schedulefree",
        description="adam: weight decay in the gradient; adamw: decoupled; schedulefree: "
        "AdamW-ScheduleFree, which uses neither amsgrad nor a scheduler; sgd: gradient descent, "
        "weight decay in the gradient; lbfgs: quasi-Newton steps with a line search, for batches "
        "of the whole training set; levenberg_marquardt: one damped Gauss-Newton step an epoch "
        "on the whole training set, for models of few parameters",
    )
    beta: Annotated[Number, Field(ge=0.0, lt=1.0)] = Field(
        default=0.9, description="decay of the mean gradient"
    )
    beta_two: Annotated[Number, Field(ge=0.0, lt=1.0)] = Field(
        default=0.999, description="decay of the mean squared gradient"
    )
    momentum: Annotated[Number, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="sgd: factor of the last step's direction in the next one"
    )
    lbfgs_memory: PositiveWholeNumber = Field(
        default=10, description="lbfgs: number of steps that the curvature is taken from"
    )
    weight_decay: NumberFromZero = Field(
        default=5e-7, description="decay of the weights of interactions and products"
    )
    amsgrad: bool = Field(default=True, description="AMSGrad variant of adam and adamw")
    ema: bool = Field(
        default=False, description="evaluate and save an exponential moving average of the weights"
    )
    ema_decay: Annotated[Number, Field(gt=0.0, lt=1.0)] = Field(
        default=0.99, description="decay of that average per step"
    )
    clip_grad: Annotated[PositiveNumber | None, NoneInText] = Field(
        default=10.0, description="largest norm of the whole gradient; None: no clipping"
    )

    def problems(self) -> list[str]:
        """Tell what does not go together."""
        if self.optimizer == "schedulefree" and self.beta == 0.0:
            return ["option 'beta': must be above 0 for the schedulefree optimizer"]
        return []

    @property
    def unused(self) -> frozenset[str]:
        """Names of the options of other optimisers."""
        return frozenset().union(*_OPTIONS_OF.values()) - _OPTIONS_OF[self.optimizer]

    @property
    def has_learning_rates(self) -> bool:
        """Whether the length of a step is given, not found by trying."""
        return not self.has_one_loss

    @property
    def has_one_loss(self) -> bool:
        """Whether all steps of a stage have to be of one loss over the same structures."""
        return self.optimizer in ("lbfgs", "levenberg_marquardt")

    @property
    def sums_over_batches(self) -> bool:
        """Whether a step is made from sums over all batches of an epoch."""
        return self.optimizer == "levenberg_marquardt"

    @property
    def largest_gradient(self) -> float | None:
        """Norm at which the gradient is clipped, if it is."""
        return None if "clip_grad" in self.unused else self.clip_grad


class SchedulerOptions(OptionGroup):
    """Learning rates"""

    lr: Annotated[NumberFromZero, DecidesWeights(False)] = Field(
        default=0.01, description="learning rate of stages that set none"
    )
    scheduler: Literal["ReduceLROnPlateau", "ExponentialLR"] = Field(
        default="ReduceLROnPlateau", description="change of the learning rate from epoch to epoch"
    )
    lr_factor: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=0.8, description="ReduceLROnPlateau: factor of a reduction"
    )
    scheduler_patience: WholeNumberFromZero = Field(
        default=50, description="ReduceLROnPlateau: epochs without improvement before a reduction"
    )
    scheduler_min_lr: NumberFromZero = Field(
        default=0.0, description="ReduceLROnPlateau: no learning rate is reduced below this"
    )
    lr_scheduler_gamma: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=0.9993, description="ExponentialLR: factor per epoch"
    )
