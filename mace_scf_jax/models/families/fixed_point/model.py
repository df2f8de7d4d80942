"""FixedPoint: multipoles that answer the potential which they cause.

Once per geometry the backbone gives local multipoles p_local and everything else that does not
depend on the multipoles (`LocalState`). One step of the self-consistent cycle is then

    v = (T p + external field + Fermi level) / norms,    F(p, μ) = p_local + Δp(h, z, v),

and the solved state is p = F(p, μ), at a given Fermi level μ or at the one that gives a total
charge. The module provides the local part, the step and the observables; how the equation is
solved is the matter of `mace_scf_jax.scf`.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import (
    FieldFeatureSettings,
    Response,
    batch_atomic_potentials,
    batch_dipole,
    external_field_features,
    features_by_degree,
    prepare_response,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features, add_up, concatenate_components
from mace_scf_jax.layers.linear import EquivariantLinear
from mace_scf_jax.layers.notation import parse_multiplicities
from mace_scf_jax.layers.readout import LinearReadout, NonlinearReadout
from mace_scf_jax.models.energies import ENERGIES_IN, density_outputs
from mace_scf_jax.models.families.fixed_point.choices import FIELD_READOUTS
from mace_scf_jax.models.families.fixed_point.density_update import DensityUpdate
from mace_scf_jax.models.families.fixed_point.field_readouts import SolvedDensity
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.models.field_feature_norms import expanded_norms
from mace_scf_jax.models.settings import ModelSettings

LOCAL_READOUT_GATE = "silu"
"""Activation of the readout of local multipoles."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LocalState:
    """What a geometry fixes before any multipoles are solved for."""

    graph: Graph
    backbone: BackboneOutput
    multipoles: Float[Array, "atoms components"]
    """p_local in e Å^l, order Q, d_y, d_z, d_x; 0 for padding atoms."""
    mixed_features: Features
    """Sum over layers of a linear map of their features."""
    external_features: Float[Array, "atoms features"]
    """Field features of the external field in V, before normalisation."""
    response: Response
    """T: from multipoles to field features."""


class FixedPoint(nn.Module):
    """Energy = isolated atoms + layer readouts + field readout + Coulomb energy + D·E.

    The energy is not variational in the multipoles: forces contain their response.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` with features are needed.
    """

    settings: ModelSettings[FixedPointSettings]

    def setup(self) -> None:
        """The layers; a layer of the name ``x_i`` belongs to layer i of the backbone."""
        settings, choices = self.settings, self.settings.own
        backbone, max_l = settings.backbone, settings.density.max_l
        num_elements = len(settings.elements)
        one_of_each = dict.fromkeys(range(max_l + 1), 1)
        same = dict.fromkeys(range(backbone.max_hidden_degree + 1), backbone.channels)
        hidden = parse_multiplicities(backbone.MLP_irreps, option="MLP_irreps")

        self.backbone = backbone.build()
        for layer in range(backbone.num_interactions):
            readout = (
                LinearReadout(one_of_each)
                if choices.linear_local_multipoles
                else NonlinearReadout(one_of_each, hidden, LOCAL_READOUT_GATE, num_hidden=2)
            )
            setattr(self, f"multipole_readout_{layer}", readout)
            setattr(self, f"feature_mixer_{layer}", EquivariantLinear(same))
        self.density_update = DensityUpdate(
            update=choices.update,
            potential_embedding=choices.potential_embedding,
            nonlinearity=choices.nonlinearity,
            max_l=max_l,
            num_elements=num_elements,
            correlation=choices.correlation,
            skip_connection=choices.skip_connection,
            scale=choices.atom_density_scaling,
        )
        self.field_readout = FIELD_READOUTS[choices.field_readout].make(num_elements)

    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Observables of one step from the local multipoles at the Fermi levels of the batch.

        The result is **not** self-consistent. It is what the training mode ``direct`` computes,
        except that this starts from reference multipoles.
        """
        local = self.local(graph)
        levels = jnp.asarray(graph.fermi_level)[graph.atom_graph]
        features = self.field_features(local, local.multipoles, levels)
        return self.observables(local, self.answer(local, features), features)

    def local(self, graph: Graph) -> LocalState:
        """Everything that does not depend on the multipoles."""
        backbone = self.backbone(graph)
        layers = list(enumerate(backbone.layers))
        multipoles = add_up(
            concatenate_components(getattr(self, f"multipole_readout_{layer}")(features))[..., 0]
            for layer, features in layers
        )
        mapped = [getattr(self, f"feature_mixer_{layer}")(features) for layer, features in layers]
        if self.settings.own.linear_local_multipoles:
            scale = jnp.asarray(self.settings.own.atom_density_scaling, multipoles.dtype)
            multipoles *= scale[graph.species][:, None]
        return LocalState(
            graph=graph,
            backbone=backbone,
            multipoles=jnp.where(graph.atom_mask[:, None], multipoles, 0.0),
            mixed_features=jax.tree.map(lambda *values: add_up(values), *mapped),
            external_features=external_field_features(
                jnp.asarray(graph.positions),
                jnp.zeros_like(multipoles[:, 0]),
                jnp.asarray(graph.external_field)[graph.atom_graph],
                features=self.receivers,
            ),
            response=prepare_response(graph, settings=self.settings.density),
        )

    def fermi_level_features(
        self, local: LocalState, levels: Float[Array, "atoms"]
    ) -> Float[Array, "atoms features"]:
        """Field features of a Fermi level in V, before normalisation.

        Args:
            levels: Fermi level at every atom in eV; physical ones are equal within a graph.
        """
        return external_field_features(
            jnp.asarray(local.graph.positions),
            levels - self.settings.own.fermi_level_offset,
            jnp.zeros(local.graph.positions.shape, levels.dtype),
            features=self.receivers,
        )

    def field_features(
        self,
        local: LocalState,
        multipoles: Float[Array, "atoms components"],
        levels: Float[Array, "atoms"],
    ) -> Float[Array, "atoms features"]:
        """Normalised field features v of multipoles, external field and Fermi level.

        Args:
            multipoles: p in e Å^l.
            levels: Fermi level at every atom in eV.
        """
        return self._normalised(local, local.response.apply(multipoles), levels)

    def _normalised(
        self,
        local: LocalState,
        features: Float[Array, "atoms features"],
        levels: Float[Array, "atoms"],
    ) -> Float[Array, "atoms features"]:
        """Field features v, from those of the multipoles."""
        features += local.external_features + self.fermi_level_features(local, levels)
        return features / jnp.asarray(self.feature_norms(), features.dtype)

    def answer(
        self, local: LocalState, features: Float[Array, "atoms features"]
    ) -> Float[Array, "atoms components"]:
        """Multipoles that atoms take on in a potential, p_local + Δp.

        Args:
            features: normalised field features.
        """
        change = self.density_update(
            local.mixed_features,
            self._by_degree(features),
            local.backbone.edges,
            local.graph,
        )
        return jnp.where(local.graph.atom_mask[:, None], local.multipoles + change, 0.0)

    def step(
        self,
        local: LocalState,
        multipoles: Float[Array, "graphs slots components"],
        levels: Float[Array, "graphs slots"],
    ) -> Float[Array, "graphs slots components"]:
        """One step of the self-consistent cycle, F(p, μ), in the dense view of the batch.

        T pairs the atoms of a graph, the answer is that of single atoms: between them features
        change from the dense view to that of atoms, and multipoles back.

        Args:
            multipoles: p in e Å^l.
            levels: Fermi level at every atom in eV.
        """
        graph = local.graph
        features = graph.from_slots(local.response.apply_in_slots(multipoles))
        features = self._normalised(local, features, graph.from_slots(levels))
        return graph.to_slots(self.answer(local, features))

    def observables(
        self,
        local: LocalState,
        multipoles: Float[Array, "atoms components"],
        features: Float[Array, "atoms features"],
    ) -> dict[str, Array]:
        """Energies (eV), dipoles (e Å; x, y, z) and potentials (V) of solved multipoles.

        Args:
            multipoles: p in e Å^l.
            features: normalised field features in which the energy is read; those of p at the
                solution.
        """
        graph, system = local.graph, local.response.system
        outputs = density_outputs(
            self.settings,
            graph,
            local.backbone,
            multipoles,
            batch_dipole(graph, multipoles),
            prepared=system,
        )
        density = SolvedDensity(
            features=local.backbone.layers[-1],
            local_multipoles=_multipole_features(local.multipoles),
            multipoles=_multipole_features(multipoles),
            potential=self._by_degree(features),
        )
        field_energies = self.field_readout(density, local.backbone.edges, graph)
        if not self.settings.own.include_field_energy:
            field_energies = jnp.zeros_like(field_energies)
        field_energies = jnp.where(graph.atom_mask, field_energies, 0.0)
        field_energy = graph.sum_atoms(field_energies)
        potentials = batch_atomic_potentials(
            graph, multipoles, settings=self.settings.density, prepared=system
        )
        return {
            **outputs,
            "energy": outputs["energy"] + field_energy.astype(ENERGIES_IN),
            "node_energy": outputs["node_energy"] + field_energies.astype(ENERGIES_IN),
            "field_energy": field_energy,
            "local_multipoles": local.multipoles,
            "field_features": jnp.where(graph.atom_mask[:, None], features, 0.0),
            "electrostatic_potentials": jnp.where(
                graph.atom_mask, potentials + graph.external_potential(), 0.0
            ),
        }

    @property
    def receivers(self) -> FieldFeatureSettings:
        """Degrees and widths of the field features."""
        return self.settings.density.receivers

    def feature_norms(self) -> np.ndarray:
        """What every component of the field features is divided by, [features]."""
        return expanded_norms(self.settings.own.field_feature_norms, self.receivers.max_l)

    def _by_degree(self, flat: Float[Array, "atoms features"]) -> Features:
        """Field features (by degree, then width, then component) as degree -> [atoms, 2l+1, n]."""
        return features_by_degree(flat, self.receivers)


def _multipole_features(multipoles: Float[Array, "atoms components"]) -> Features:
    """Multipoles as features of one channel."""
    max_l = round(multipoles.shape[-1] ** 0.5) - 1
    return {l: multipoles[:, l**2 : (l + 1) ** 2, None] for l in range(max_l + 1)}
