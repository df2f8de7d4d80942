"""A plugin with one of everything: what `test_extending` adds to the package from outside."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from mace_scf_jax.backbones import (
    BACKBONES,
    RADIAL_BASES,
    Backbone,
    BackboneOutput,
    BackboneSettings,
    RadialBasis,
)
from mace_scf_jax.electrostatics import batch_dipole
from mace_scf_jax.models import (
    FAMILIES,
    FIELD_READOUTS,
    OUTPUTS,
    Family,
    FamilySettings,
    FieldReadout,
    ModelSettings,
    Output,
    ParameterGroup,
    Use,
    density_outputs,
)
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.scf import SOLVERS, Iterate, IterativeSolver, Outcome, eliminate_charge
from mace_scf_jax.training.losses import Mean, mean, property_weight, register_loss

# --- a loss term ---------------------------------------------------------------------------------


class QuarticOptions(OptionGroup):
    """Options of the term"""

    softness: float = Field(default=1.0, gt=0.0, description="error that counts as one, in eV/Å")


@register_loss(
    "fourth power of the force error",
    predictions=("forces",),
    labels=("forces",),
    options=QuarticOptions,
)
def quartic_forces(prediction, graph, options) -> Mean:
    error = (graph.labels["forces"] - prediction["forces"]) / options.softness
    weight = property_weight(graph, "forces")[graph.atom_graph]
    return mean(weight[:, None] * error**4, graph.atom_mask)


# --- a radial basis ------------------------------------------------------------------------------


def cosine_basis(lengths, cutoff, size):
    """Return cos(n π r / r_c), n = 0 … size - 1."""
    orders = jnp.arange(size, dtype=lengths.dtype)
    return jnp.cos(jnp.pi * orders * lengths[:, None] / cutoff)


RADIAL_BASES.add(RadialBasis("cosines", cosine_basis))


# --- an output -----------------------------------------------------------------------------------

OUTPUTS.add(
    Output(
        "charge_spread",
        per="graph",
        unit="e²",
        meaning="mean square of the atomic charges",
        uses=Use.EVERYWHERE,
    )
)


# --- a backbone: sums over pairs -----------------------------------------------------------------


class PairOptions(OptionGroup):
    """Backbone PairSums"""

    num_widths: int = Field(default=3, ge=1, description="Gaussians of the distance in each sum")


@dataclasses.dataclass(frozen=True)
class PairSettings(BackboneSettings):
    name: ClassVar[str] = "PairSums"

    elements: tuple[int, ...]
    r_max: float = 5.0
    num_widths: int = 3
    num_interactions: int = 1
    max_hidden_degree: int = 0

    @property
    def channels(self) -> int:
        return self.num_widths * len(self.elements)


class PairSums(nn.Module):
    """Σ_j exp(-η r²) f_c(r) for every element of the neighbour and several η."""

    settings: PairSettings

    @nn.compact
    def __call__(self, graph) -> BackboneOutput:
        settings, vectors = self.settings, graph.edge_vectors()
        squares = jnp.sum(vectors**2, axis=-1) / settings.r_max**2
        inside = graph.edge_mask & (squares < 1.0)
        smooth = jnp.where(inside, (1.0 - squares) ** 3, 0.0)
        exponents = jnp.arange(1, settings.num_widths + 1, dtype=squares.dtype)
        of_edges = jnp.exp(-exponents * squares[:, None]) * smooth[:, None]
        element = jax.nn.one_hot(
            graph.species[graph.senders], len(settings.elements), dtype=squares.dtype
        )
        sums = jax.ops.segment_sum(
            (of_edges[:, :, None] * element[:, None, :]).reshape(len(of_edges), -1),
            graph.receivers,
            num_segments=graph.num_atoms,
        )
        own = self.param(
            "own", nn.initializers.normal(1.0), (len(settings.elements), sums.shape[1])
        )
        features = jnp.tanh(sums * own[graph.species])
        weight = self.param("energy", nn.initializers.normal(0.1), (features.shape[1],))
        return BackboneOutput(
            layers=({0: features[:, None, :]},),
            layer_energies=(features @ weight)[None],
            pair_energy=jnp.zeros_like(features[:, 0]),
        )


BACKBONES.add(
    Backbone(
        name="PairSums",
        module=PairSums,
        settings=PairSettings,
        options=PairOptions,
        groups={
            "own": ParameterGroup("pair_sums", decay="weight_decay"),
            "energy": ParameterGroup("pair_energy"),
        },
    )
)


# --- a model family ------------------------------------------------------------------------------


class ShiftedOptions(OptionGroup):
    """Charges that add up (NeutralCharges)"""

    largest_charge: float = Field(default=1.0, gt=0.0, description="bound on atomic charges, in e")


@dataclasses.dataclass(frozen=True)
class NeutralSettings(FamilySettings):
    largest_charge: float = 1.0


class NeutralCharges(nn.Module):
    """Bounded charges read off the scalars of the last layer; the surplus is shared equally."""

    settings: ModelSettings[NeutralSettings]

    @nn.compact
    def __call__(self, graph) -> dict[str, Any]:
        backbone = self.settings.backbone.build(name="backbone")(graph)
        scalars = backbone.layers[-1][0][:, 0, :]
        weight = self.param("charge_readout", nn.initializers.normal(0.3), (scalars.shape[1],))
        charges = self.settings.own.largest_charge * jnp.tanh(scalars @ weight)
        charges = jnp.where(graph.atom_mask, charges, 0.0)
        atoms = jnp.maximum(graph.sum_atoms(jnp.ones_like(charges)), 1.0)
        surplus = (graph.sum_atoms(charges) - graph.total_charge) / atoms
        charges = jnp.where(graph.atom_mask, charges - surplus[graph.atom_graph], 0.0)
        multipoles = charges[:, None]
        outputs = density_outputs(
            self.settings, graph, backbone, multipoles, batch_dipole(graph, multipoles)
        )
        return {**outputs, "charge_spread": graph.sum_atoms(charges**2) / atoms}


FAMILIES.add(
    Family(
        name="NeutralCharges",
        module=NeutralCharges,
        settings=NeutralSettings,
        stored_as="neutral_charges",
        max_l=0,
        options=(ShiftedOptions,),
        groups={"charge_readout": ParameterGroup("neutral_charge_readout")},
    )
)


# --- an SCF solver and a field readout -----------------------------------------------------------


@SOLVERS.add
@dataclasses.dataclass(frozen=True)
class HalfSteps(IterativeSolver):
    """z ← z - ½ M⁻¹ R(z), where M⁻¹ lets the level answer for the charge."""

    name = "half_steps"

    max_steps: int = 200
    tolerance: float = 1e-7

    def init(self, equations, start, memory):
        return self._at(equations, start)

    def step(self, equations, current, progress):
        residual, response = equations.residual_with_response(current.vectors)
        direction = eliminate_charge(equations.problem, response).apply(residual)
        return self._at(equations, current.vectors - 0.5 * direction)

    def _at(self, equations, vectors):
        residual = equations.residual(vectors)
        solved = equations.is_solved(vectors, residual, self.tolerance)
        outcome = Outcome.of(equations.error(residual), converged=solved, evaluations=2)
        return Iterate(vectors, residual), outcome


class LinearInCharges(nn.Module):
    """One number per element times the charge."""

    num_elements: int

    @nn.compact
    def __call__(self, density, edges, graph):
        weight = self.param("weight", nn.initializers.normal(0.1), (self.num_elements,))
        return weight[graph.species] * density.multipoles[0][:, 0, 0]


FIELD_READOUTS.add(FieldReadout("LinearInCharges", LinearInCharges))
