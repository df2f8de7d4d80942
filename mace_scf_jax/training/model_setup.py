"""From training options and data to a model: settings, module, initial parameters, modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.backbones import BackboneSettings
from mace_scf_jax.electrostatics import (
    BoundaryMode,
    ElectrostaticsSettings,
    FieldFeatureSettings,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import (
    CHARGE_EQUILIBRATION_FAMILIES,
    CHARGED_FAMILIES,
    CHARGES_ONLY_FAMILIES,
    ENERGY_FUNCTIONAL_FAMILIES,
    FORMAL_CHARGE_FAMILIES,
    SELF_CONSISTENT_FAMILIES,
    SPLIT_CHARGE_FAMILIES,
    ChargeEquilibrationSettings,
    EnergyFunctionalSettings,
    FixedPointSettings,
    ModelSettings,
    SplitChargeSettings,
    evaluate,
)
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.schedule import Stage
from mace_scf_jax.training.fixed_point_setup import with_scaled_charge_heads
from mace_scf_jax.training.loop.fixed_point_modes import FixedPointPredict
from mace_scf_jax.training.loop.steps import Mode
from mace_scf_jax.training.losses.registry import LOSSES
from mace_scf_jax.training.optimise.parameter_groups import Parameters

RUN_ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a function that takes longer to compile than to run: half the time."""


def multipoles_max_l(options: TrainOptions) -> int:
    """Highest degree of the multipoles that the model has and the labels are read with."""
    if options.model in CHARGES_ONLY_FAMILIES:
        return 0
    return options.atomic_multipoles_max_l


def electrostatics_settings(
    options: TrainOptions, *, any_periodic: bool
) -> ElectrostaticsSettings | None:
    """Electrostatics that the options describe; None for families without charges.

    Args:
        options: of the run.
        any_periodic: whether any structure has a periodic direction, for the mode ``auto``.
    """
    if options.model not in CHARGED_FAMILIES:
        return None
    boundary = BoundaryMode(options.electrostatic_pbc_method)
    if boundary is BoundaryMode.AUTO:
        boundary = BoundaryMode.MIXED_PERIODIC if any_periodic else BoundaryMode.REALSPACE
    features = None
    if options.model in SELF_CONSISTENT_FAMILIES:
        features = FieldFeatureSettings(
            max_l=options.field_feature_max_l,
            widths=options.field_feature_widths,
            include_self_interaction=options.include_field_si,
        )
    return ElectrostaticsSettings(
        max_l=multipoles_max_l(options),
        smearing_width=options.atomic_multipoles_smearing_width,
        kspace_cutoff_factor=options.kspace_cutoff_factor,
        boundary=boundary,
        include_self_interaction=options.include_electrostatic_self_interaction,
        features=features,
    )


def model_settings(
    options: TrainOptions,
    *,
    elements: tuple[int, ...],
    atomic_energies: tuple[float, ...],
    avg_num_neighbors: float,
    electrostatics: ElectrostaticsSettings | None,
    fixed_point: FixedPointSettings | None = None,
    scale: float = 1.0,
    shift: float = 0.0,
) -> ModelSettings:
    """Settings of the model that options and data describe.

    Args:
        options: of the run.
        elements: atomic numbers, ascending.
        atomic_energies: energy of an isolated atom of each element in eV.
        avg_num_neighbors: divisor of sums over neighbours.
        electrostatics: as of :func:`electrostatics_settings`.
        fixed_point: as of :func:`fixed_point_settings`, for families that need them.
        scale: factor on the interaction energy (ScaleShiftMACE).
        shift: energy per atom in eV added to it (ScaleShiftMACE).

    Raises:
        ConfigurationError: formal charges are missing for an element, or given for others.
        ValueError: a size or choice does not exist.
    """
    return ModelSettings(
        family=options.model,
        backbone=BackboneSettings(
            elements=elements,
            hidden_irreps=options.irreps,
            r_max=options.r_max,
            num_radial_basis=options.num_radial_basis,
            num_cutoff_basis=options.num_cutoff_basis,
            max_ell=options.max_ell,
            correlation=options.correlation,
            num_interactions=options.num_interactions,
            interaction=options.interaction,
            interaction_first=options.interaction_first,
            radial_MLP=options.radial_MLP,
            radial_type=options.radial_type,
            distance_transform=options.distance_transform,
            MLP_irreps=options.MLP_irreps,
            gate=str(options.gate),
            avg_num_neighbors=avg_num_neighbors,
            pair_repulsion=options.pair_repulsion,
            scalar_last_layer=options.model not in CHARGED_FAMILIES,
            use_linear_final_readout=options.use_linear_final_readout,
        ),
        atomic_energies=atomic_energies,
        electrostatics=electrostatics,
        scale=scale,
        shift=shift,
        formal_charges=_formal_charges(options, elements),
        split_charges=_split_charges(options),
        charge_equilibration=_charge_equilibration(options),
        energy_functional=_energy_functional(options),
        fixed_point=fixed_point,
    )


def _formal_charges(options: TrainOptions, elements: tuple[int, ...]) -> tuple[float, ...] | None:
    """Formal charge of each element; None if there is none or every structure has its own."""
    if options.model not in FORMAL_CHARGE_FAMILIES or options.formal_charges_from_data:
        return None
    given = options.atomic_formal_charges
    problems = []
    for problem, wrong in (
        ("no charge for", set(elements) - given.keys()),
        ("charges for elements that the training set does not have:", given.keys() - elements),
    ):
        if wrong:
            symbols = ", ".join(chemical_symbols[element] for element in sorted(wrong))
            problems.append(f"option 'atomic_formal_charges': found {problem} {symbols}")
    if problems:
        raise ConfigurationError(*problems)
    return tuple(given[element] for element in elements)


def _charge_equilibration(options: TrainOptions) -> ChargeEquilibrationSettings | None:
    if options.model not in CHARGE_EQUILIBRATION_FAMILIES:
        return None
    return ChargeEquilibrationSettings(
        read_enegs=options.read_enegs,
        read_hardness=options.read_hardness,
        train_hardness=options.train_hardness,
        default_hardness=options.default_hardness,
    )


def _energy_functional(options: TrainOptions) -> EnergyFunctionalSettings | None:
    if options.model not in ENERGY_FUNCTIONAL_FAMILIES:
        return None
    return EnergyFunctionalSettings(default_hardness=options.default_hardness)


def _split_charges(options: TrainOptions) -> SplitChargeSettings | None:
    if options.model not in SPLIT_CHARGE_FAMILIES:
        return None
    return SplitChargeSettings(
        transfer_block=options.static_bond_transfer_block,
        transfer_range=options.oxidation_state_range,
        oxidation_state_mixer=options.oxidation_state_mixer,
        oxidation_state_range=options.oxidation_state_range,
        polarizability=options.compute_polarizability,
    )


def initial_parameters(module: nn.Module, graph: Graph, *, options: TrainOptions) -> Parameters:
    """Random parameters, drawn in double precision so that both precisions start alike.

    Args:
        module: the model.
        graph: any batch; only its shapes matter.
        options: of the run: seed, precision, and scale of the charge heads.
    """
    key, graph = jax.random.key(options.seed), _in_double_precision(graph)
    compiled = jax.jit(module.init).lower(key, graph).compile(RUN_ONCE)
    parameters = compiled(key, graph)["params"]
    if options.model in SELF_CONSISTENT_FAMILIES:
        scale = options.fixedpoint_initial_charge_head_scale
        parameters = with_scaled_charge_heads(parameters, scale)
    return jax.tree.map(lambda leaf: leaf.astype(options.default_dtype), parameters)


def _in_double_precision(graph: Graph) -> Graph:
    """The batch with all real numbers in double precision, in which modules make parameters."""
    return jax.tree.map(
        lambda leaf: leaf.astype("float64") if leaf.dtype.kind == "f" else leaf, graph
    )


@dataclasses.dataclass(frozen=True)
class ModelPredict:
    """A model with one way to be evaluated; a `Predict`."""

    module: nn.Module

    def __call__(
        self, params: Parameters, graph: Graph, *, forces: bool, stress: bool
    ) -> dict[str, Array]:
        """Model outputs by name."""
        return evaluate(self.module, params, graph, forces=forces, stress=stress)


def modes_of(module: nn.Module) -> Callable[[Stage], Mode]:
    """How each stage uses the model.

    Args:
        module: the model.

    Returns:
        The mode of a stage: one and the same for all stages, except for fixed-point models.
    """
    plain = Mode(ModelPredict(module))

    def mode(stage: Stage) -> Mode:
        if stage.fixed_point is None:
            return plain
        predict = FixedPointPredict(module, stage.fixed_point)
        read = {output for term in stage.loss for output in LOSSES[term].predictions}
        predict = FixedPointPredict(
            module, stage.fixed_point, predict.further_outputs().intersection(read)
        )
        return Mode(predict, stage.fixed_point.mode.value)

    return mode


def output_names(module: nn.Module, mode: Mode, graph: Graph, *, stress: bool) -> tuple[str, ...]:
    """Names of what a model predicts, without computing or compiling anything.

    Args:
        module: the model.
        mode: how it is used.
        graph: any batch.
        stress: whether stresses are predicted.
    """

    def outputs(key, graph):
        parameters = module.init(key, graph)["params"]
        return mode.predict(parameters, graph, forces=True, stress=stress)

    return tuple(jax.eval_shape(outputs, jax.random.key(0), _in_double_precision(graph)))


def number_of_parameters(parameters: Parameters) -> int:
    """Number of trainable numbers."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))
