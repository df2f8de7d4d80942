"""PolarMACE: multipoles of both spins, changed a few times by the potential that they cause.

The backbone gives multipoles p of each spin and Fukui weights φ, from the surroundings of the atoms
alone. Steps t = 1 … T with weights of their own follow, each in the potential v of the multipoles
so far:

    p ← equilibrated(p + Δp_t(h, v, p), φ_t),    v = (T p + half of the external field) / norms.

That is no search for self-consistency: T is small, and part of the model. After every step the
charges of each spin add up to what total charge and multiplicity ask for, exactly.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import (
    FieldFeatureSettings,
    Response,
    batch_dipole,
    features_by_degree,
    prepare_response,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features, add_up, concatenate_components
from mace_scf_jax.layers.linear import EquivariantLinear
from mace_scf_jax.layers.notation import parse_multiplicities
from mace_scf_jax.layers.readout import LinearReadout, NonlinearReadout
from mace_scf_jax.models.energies import ENERGIES_IN, density_outputs
from mace_scf_jax.models.families.polar_mace.equilibration import equilibrated
from mace_scf_jax.models.families.polar_mace.settings import (
    PolarMACESettings,
    centred_field_features,
)
from mace_scf_jax.models.families.polar_mace.spin_update import (
    SPINS,
    ElectronEnergy,
    SpinUpdate,
)
from mace_scf_jax.models.field_feature_norms import expanded_norms
from mace_scf_jax.models.settings import ModelSettings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LocalState:
    """What the surroundings of the atoms give, before they see any potential."""

    graph: Graph
    backbone: BackboneOutput
    density: Float[Array, "atoms components 2"]
    """p_local of each spin in e Å^l, with the total charges; 0 for padding atoms."""
    fukui: Float[Array, "atoms 2"]
    """Weights with which these have got their total charges."""
    mixed_features: Features
    """Sum over layers of a linear map of their features."""
    external_features: Float[Array, "atoms features"]
    """Field features of the external field in V, before normalisation."""
    response: Response
    """T: from multipoles to field features."""


class PolarMACE(nn.Module):
    """Energy = isolated atoms + scaled readouts + electron energy + Coulomb energy + D·E.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` with features are needed.
    """

    settings: ModelSettings[PolarMACESettings]

    def setup(self) -> None:
        """The layers; a layer of the name ``x_i`` belongs to layer i of the backbone, or step i."""
        settings, backbone = self.settings, self.settings.backbone
        max_l, num_elements = settings.density.max_l, len(settings.elements)
        both_spins = dict.fromkeys(range(max_l + 1), SPINS)
        same = dict.fromkeys(range(backbone.max_hidden_degree + 1), backbone.channels)
        hidden = parse_multiplicities(backbone.MLP_irreps, option="MLP_irreps")

        self.backbone = backbone.build()
        for layer in range(backbone.num_interactions):
            setattr(self, f"spin_multipole_readout_{layer}", LinearReadout(both_spins))
            setattr(self, f"feature_mixer_{layer}", EquivariantLinear(same))
        self.fukui_readout = NonlinearReadout({0: SPINS}, hidden, backbone.gate, 2, bias=True)
        for step in range(settings.own.num_recursion_steps):
            setattr(self, f"spin_update_{step}", SpinUpdate(max_l, num_elements))
        if settings.own.include_field_energy:
            self.electron_energy = ElectronEnergy()

    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and dipoles (e Å; x, y, z)."""
        local = self.local(graph)
        density = local.density
        for step in range(self.settings.own.num_recursion_steps):
            potential = self.field_features(local, density)
            density = self.step(step, local, density, potential)
        return self.observables(local, density, potential)

    def local(self, graph: Graph) -> LocalState:
        """Everything that depends on no potential."""
        backbone = self.backbone(graph)
        layers = list(enumerate(backbone.layers))
        density = add_up(
            concatenate_components(getattr(self, f"spin_multipole_readout_{layer}")(features))
            for layer, features in layers
        )
        density = jnp.where(graph.atom_mask[:, None, None], density, 0.0)
        mixed = [getattr(self, f"feature_mixer_{layer}")(features) for layer, features in layers]
        fukui = self.fukui_readout(backbone.layers[-1])[0][:, 0]
        return LocalState(
            graph=graph,
            backbone=backbone,
            density=equilibrated(graph, density, fukui),
            fukui=fukui,
            mixed_features=jax.tree.map(lambda *values: add_up(values), *mixed),
            external_features=centred_field_features(graph, features=self._receivers),
            response=prepare_response(graph, settings=self.settings.density),
        )

    def field_features(
        self, local: LocalState, density: Float[Array, "atoms components 2"]
    ) -> Float[Array, "atoms features 2"]:
        """Normalised field features v of both spins, each with half of the external field.

        Args:
            density: multipoles of each spin in e Å^l.
        """
        features = jax.vmap(local.response.apply, in_axes=-1, out_axes=-1)(density)
        features += 0.5 * local.external_features[..., None]
        norms = expanded_norms(self.settings.own.field_feature_norms, self._receivers.max_l)
        return features / jnp.asarray(norms, features.dtype)[:, None]

    def step(
        self,
        step: int,
        local: LocalState,
        density: Float[Array, "atoms components 2"],
        potential: Float[Array, "atoms features 2"],
    ) -> Float[Array, "atoms components 2"]:
        """Multipoles after a step.

        Args:
            step: number of the step, from 0.
            density: multipoles before it in e Å^l.
            potential: their normalised field features.
        """
        change, fukui = self.change(step, local, density, potential)
        changed = jnp.where(local.graph.atom_mask[:, None, None], density + change, 0.0)
        return equilibrated(local.graph, changed, fukui)

    def change(
        self,
        step: int,
        local: LocalState,
        density: Float[Array, "atoms components 2"],
        potential: Float[Array, "atoms features 2"],
    ) -> tuple[Float[Array, "atoms components 2"], Float[Array, "atoms 2"]]:
        """Change of the multipoles in a step, and its Fukui weights; arguments as for `step`."""
        change, fukui = getattr(self, f"spin_update_{step}")(
            local.mixed_features,
            self._potential_by_degree(potential),
            _by_degree(density),
            local.graph.species,
        )
        return concatenate_components(change), fukui

    def field_energies(
        self,
        local: LocalState,
        density: Float[Array, "atoms components 2"],
        potential: Float[Array, "atoms features 2"],
    ) -> Float[Array, "atoms"]:
        """Energy of every atom in eV that is read from its multipoles and their potential."""
        if not self.settings.own.include_field_energy:
            return jnp.zeros_like(local.fukui[:, 0])
        return self.electron_energy(
            local.backbone.layers[-1],
            _by_degree(density + local.density),
            self._potential_by_degree(potential),
        )

    def observables(
        self,
        local: LocalState,
        density: Float[Array, "atoms components 2"],
        potential: Float[Array, "atoms features 2"],
    ) -> dict[str, Array]:
        """Energies and multipoles.

        Args:
            density: final multipoles of each spin in e Å^l.
            potential: normalised field features of the last step.
        """
        graph, backbone, own = local.graph, local.backbone, self.settings.own
        multipoles = jnp.sum(density, axis=-1)
        spin_multipoles = density[..., 0] - density[..., 1]
        outputs = density_outputs(
            self.settings,
            graph,
            backbone,
            multipoles,
            batch_dipole(graph, multipoles),
            prepared=local.response.system,
            scale=own.scale,
            shift=own.shift,
        )
        field_energy = graph.sum_atoms(self.field_energies(local, density, potential))
        return {
            **outputs,
            "energy": outputs["energy"] + field_energy.astype(ENERGIES_IN),
            "field_energy": field_energy,
            "local_multipoles": jnp.sum(local.density, axis=-1),
            "spin_multipoles": spin_multipoles,
            "spins": spin_multipoles[:, 0],
        }

    @property
    def _receivers(self) -> FieldFeatureSettings:
        return self.settings.density.receivers

    def _potential_by_degree(self, potential: Float[Array, "atoms features 2"]) -> Features:
        """Field features by degree, [atoms, 2l+1, widths of one spin, then of the other]."""
        first, second = (
            features_by_degree(potential[..., spin], self._receivers) for spin in range(SPINS)
        )
        return {
            degree: jnp.concatenate([first[degree], second[degree]], axis=-1) for degree in first
        }


def _by_degree(density: Float[Array, "atoms components 2"]) -> Features:
    """Multipoles as features with a channel for each spin."""
    max_l = round(density.shape[1] ** 0.5) - 1
    return {l: density[:, l**2 : (l + 1) ** 2] for l in range(max_l + 1)}
