"""How the stages of a training run use a model, and what a fixed-point model tells its losses.

A :class:`ModelMode` is equal to another if both compute the same, so that stages that train alike
share their compiled steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.electrostatics import batch_atomic_potentials
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import DirectStep, SelfConsistency, evaluate
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    reference_multipoles,
)
from mace_scf_jax.models.screening import seen_by_multipoles
from mace_scf_jax.scf import SOLVERS, Differentiation, LinearMixing, solver_named
from mace_scf_jax.training.loop.fixed_point_training import (
    FixedPointTraining,
    SCFOptions,
    TrainingMode,
)
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.losses import outputs_read
from mace_scf_jax.training.optimise.low_rank import merged
from mace_scf_jax.training.optimise.parameter_groups import Parameters

FALLBACK_STEPS = {TrainingMode.IMPLICIT: 10, TrainingMode.LINEARIZE_SOLVE: 15}
"""``num_scf_steps`` of the unrolled mixing that structures without solution fall back to."""
POWER_ITERATIONS = 3
"""Steps that turn a random perturbation towards the one that grows most."""

OF_SEARCHES = "scf_"
"""Beginning of the names of outputs that the mode ``direct``, which searches nothing, lacks."""

_DIFFERENTIATION = {
    TrainingMode.UNROLL_SCF: Differentiation.UNROLL,
    TrainingMode.IMPLICIT: Differentiation.IMPLICIT,
    TrainingMode.LINEARIZE_SOLVE: Differentiation.LINEARIZE_SOLVE,
}


def self_consistency(training: FixedPointTraining) -> SelfConsistency:
    """How a stage solves for the multipoles.

    Args:
        training: of a mode other than ``direct``.
    """
    mode, scf = training.mode, training.scf
    unrolled = mode is TrainingMode.UNROLL_SCF
    mixes = SOLVERS[scf.solver].has_setting("mixing")
    return SelfConsistency(
        solver=solver_named(
            scf.solver,
            max_steps=scf.num_scf_steps - 1,
            tolerance=scf.scf_tolerance,
            mixing=scf.mixing_parameter if mixes else None,
        ),
        differentiation=_DIFFERENTIATION[mode],
        constant_charge=scf.constant_charge,
        initial_density=scf.initial_density,
        initial_fermi_level=scf.initial_fermi_level,
        fallback=None if unrolled else _fallback(scf, FALLBACK_STEPS[mode] - 1),
        differentiate_last_step_only=(
            unrolled and not scf.use_autograd_forces and not scf.constant_charge
        ),
    )


def _fallback(scf: SCFOptions, steps: int) -> LinearMixing:
    return LinearMixing(max_steps=steps, mixing=scf.mixing_parameter, tolerance=scf.scf_tolerance)


@dataclasses.dataclass(frozen=True)
class ModelMode:
    """A model as a stage uses it."""

    module: nn.Module
    training: FixedPointTraining | None = None
    """How a fixed-point model is trained; None for other models."""
    further: frozenset[str] = frozenset()
    """Outputs beyond those of the model that are wanted, names in `FURTHER_OUTPUTS`."""

    @property
    def name(self) -> str:
        """Name for the record of compilations; empty for models with one mode only."""
        return "" if self.training is None else self.training.mode.value

    @property
    def needs_multipoles(self) -> bool:
        """Whether it starts from reference multipoles."""
        return self.training is not None and self.training.mode is TrainingMode.DIRECT

    def predict(
        self, params: Parameters, graph: Graph, *, forces: bool, stress: bool
    ) -> dict[str, Array]:
        """Compute the model outputs by name."""
        params, how = merged(params), None
        if self.training is not None:
            how = DirectStep() if self.needs_multipoles else self_consistency(self.training)
        outputs = evaluate(self.module, params, graph, how=how, forces=forces, stress=stress)
        further: dict[str, Array] = {}
        for names, function in _FURTHER.items():
            if self.further.intersection(names):
                values = function(self, params, graph, outputs)
                further |= {name: values[name] for name in names if name in self.further}
        return {**outputs, **further}

    def outputs(self, *, stress: bool) -> tuple[str, ...]:
        """Name what is predicted with forces.

        Args:
            stress: whether stresses are predicted.
        """
        names = self.module.settings.outputs
        if self.needs_multipoles:
            names = tuple(name for name in names if not name.startswith(OF_SEARCHES))
        return (*names, "forces", *(("stress", "virials") if stress else ()), *self.further)

    def step_at(self, params: Parameters, graph: Graph, outputs: Mapping[str, Array]) -> Any:
        """Set up the step of a batch, and the multipoles and levels at which losses look at it.

        These are the solved ones, or the reference in the mode ``direct``, in the dense view.
        """
        graph = seen_by_multipoles(self.module.settings, graph)
        local = self.module.apply({"params": params}, graph, method="local")
        problem = fixed_point_problem(self.module, params, local, constant_charge=False)
        multipoles = outputs["multipoles"]
        if self.needs_multipoles:
            multipoles = reference_multipoles(graph)
        return local, problem, graph.to_slots(multipoles), outputs["fermi_level"]


def modes_of(module: nn.Module) -> Callable[[Stage], ModelMode]:
    """Give the mode in which each stage uses a model.

    Returns:
        The mode of a stage: one and the same for all stages, except for fixed-point models.
    """

    def mode(stage: Stage) -> ModelMode:
        if stage.fixed_point is None:
            return ModelMode(module)
        further = further_outputs(stage.fixed_point) & outputs_read(stage.loss)
        return ModelMode(module, stage.fixed_point, further)

    return mode


def further_outputs(training: FixedPointTraining) -> frozenset[str]:
    """Name the further outputs that a stage can have.

    Args:
        training: of the stage.
    """
    absent: set[str] = set()
    if training.mode is TrainingMode.DIRECT:
        absent.add("charges_history")
    if not training.fixedpoint_scf_stability:
        absent |= {"perturbing_vector", "perturbed_density"}
    return FURTHER_OUTPUTS - absent


def in_double_precision(graph: Graph) -> Graph:
    """Convert all real numbers of a batch to double precision, in which modules make parameters."""
    return jax.tree.map(
        lambda leaf: leaf.astype("float64") if leaf.dtype.kind == "f" else leaf, graph
    )


def _potentials(
    mode: ModelMode, params: Parameters, graph: Graph, outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Potentials in V at the atoms, of the predicted and of the reference multipoles."""
    electrostatics = mode.module.settings.electrostatics
    external = seen_by_multipoles(mode.module.settings, graph).external_potential()
    reference = batch_atomic_potentials(graph, reference_multipoles(graph), settings=electrostatics)
    return {
        "esps": outputs["electrostatic_potentials"],
        "esps_dft": jnp.where(graph.atom_mask, reference + external, 0.0),
    }


def _features(
    mode: ModelMode, params: Parameters, graph: Graph, outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Normalised field features without Fermi level, of predicted and reference multipoles."""
    local, _, _, _ = mode.step_at(params, graph, outputs)
    offset = mode.module.settings.own.fermi_level_offset
    levels = jnp.full(graph.num_atoms, offset, graph.dtype)

    def features(multipoles: Array) -> Array:
        values = mode.module.apply(
            {"params": params}, local, multipoles, levels, method="field_features"
        )
        return jnp.where(graph.atom_mask[:, None], values, 0.0)

    return {
        "feats_no_mu_model": features(outputs["multipoles"]),
        "feats_no_mu_dft": features(reference_multipoles(graph)),
    }


def _history(
    mode: ModelMode, params: Parameters, graph: Graph, outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """The final multipoles, and where one more mixing step would take them."""
    _, problem, multipoles, level = mode.step_at(params, graph, outputs)
    change = problem.evaluate(multipoles, level) - multipoles
    moved = multipoles + mode.training.scf.mixing_parameter * change
    return {"charges_history": graph.from_slots(jnp.stack([multipoles, moved], axis=-1))}


def _charge_response(
    mode: ModelMode, params: Parameters, graph: Graph, outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Change of the total charge with the Fermi level at each atom in e/eV."""
    _, problem, multipoles, level = mode.step_at(params, graph, outputs)
    return {"dq_dmu": graph.from_slots(problem.evaluate_with_response(multipoles, level)[1])}


def _perturbation(
    mode: ModelMode, params: Parameters, graph: Graph, outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """A perturbation of the multipoles that grows, and what one step makes of it."""
    _, problem, multipoles, level = mode.step_at(params, graph, outputs)
    state, level = jax.lax.stop_gradient((multipoles, level))

    def one_step(vector: Array) -> Array:
        return jax.jvp(lambda p: problem.evaluate(p, level), (state,), (vector,))[1]

    # The same for the first, second, … atom of every structure, whatever else is in the batch.
    vector = jax.random.normal(jax.random.key(0), state.shape[1:], state.dtype)
    vector = jnp.where(graph.slot_mask[:, :, None], vector, 0.0)
    for _ in range(POWER_ITERATIONS):
        vector = jax.lax.stop_gradient(one_step(vector))
        norm = jnp.linalg.norm(vector, axis=(1, 2), keepdims=True)
        vector = vector / jnp.where(norm > 0.0, norm, 1.0)
    return {
        "perturbing_vector": graph.from_slots(vector),
        "perturbed_density": graph.from_slots(one_step(vector)),
    }


_Further = Callable[[ModelMode, Parameters, Graph, Mapping[str, Array]], dict[str, Array]]
_FURTHER: dict[tuple[str, ...], _Further] = {
    ("esps", "esps_dft"): _potentials,
    ("feats_no_mu_model", "feats_no_mu_dft"): _features,
    ("charges_history",): _history,
    ("dq_dmu",): _charge_response,
    ("perturbing_vector", "perturbed_density"): _perturbation,
}
FURTHER_OUTPUTS = frozenset(name for names in _FURTHER for name in names)
"""Outputs that single losses ask for, made only for them."""
