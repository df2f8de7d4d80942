"""LocalSplitCharges: formal charges, and charge that atoms transfer to each other along edges."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.backbones import BackboneOutput
from mace_scf_jax.electrostatics import dipole_cartesian
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.couplings import coupling
from mace_scf_jax.layers.features import Features, add_up, concatenate_components
from mace_scf_jax.layers.readout import LinearReadout, PolarizabilityReadout
from mace_scf_jax.models.energies import density_outputs
from mace_scf_jax.models.families.split_charges.bond_transfer import BondTransfer
from mace_scf_jax.models.families.split_charges.options import NO_MIXER, TRANSFER_BLOCKS
from mace_scf_jax.models.families.split_charges.oxidation_states import (
    OxidationStateGate,
    OxidationStateMixer,
)
from mace_scf_jax.models.families.split_charges.settings import SplitChargeSettings
from mace_scf_jax.models.formal_charges import formal_charges
from mace_scf_jax.models.polarization import net_transfer, polarization_of
from mace_scf_jax.models.settings import ModelSettings

CARTESIAN = np.array([2, 0, 1])
"""Where x, y, z stand in features of degree 1."""


def cartesian_tensor(features: Features) -> Float[Array, "atoms 3 3"]:
    """Symmetric tensors (x, y, z) from one channel each of degree 0 and 2.

    Args:
        features: degree 0 [atoms, 1, 1] and degree 2 [atoms, 5, 1], in an orthonormal basis of
            symmetric tensors: the norm of the features is the Frobenius norm of the tensor.
    """
    total = jnp.zeros((), features[0].dtype)
    for degree in (0, 2):
        basis = coupling(1, 1, degree)[CARTESIAN][:, CARTESIAN]
        basis = jnp.asarray(basis, features[degree].dtype)
        total = total + jnp.einsum("am,ijm->aij", features[degree][..., 0], basis)
    return total


class LocalSplitCharges(nn.Module):
    """Energy = isolated atoms + layer readouts + Coulomb energy of the multipoles + P·E.

    The charge of an atom is its formal charge plus what its neighbours transfer to it, so the total
    charge is the sum of the formal charges, exactly. Every layer adds its transfers and its
    readout of higher multipoles. The dipole is the polarization

        P = sum_i F_i r_i + sum_edges p_ji r_ji + sum_i d_i,

    defined under periodicity up to a lattice vector times a formal charge.

    Attributes:
        settings: sizes, choices and constants; `electrostatics` is needed.
    """

    settings: ModelSettings[SplitChargeSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and polarization (e Å).

        The polarization is the output ``dipole`` (x, y, z). Models with a polarizability readout
        also have ``polarizability`` [graphs, 3, 3] in e Å²/V.
        """
        charges = formal_charges(self.settings, graph)
        split = self.settings.own
        mix_embedding = None
        if split.oxidation_state_mixer != NO_MIXER:
            mixer = OxidationStateMixer(
                split.oxidation_state_mixer,
                split.oxidation_state_range,
                name="oxidation_state_mixer",
            )

            def mix_embedding(features: Features) -> Features:
                return mixer(features, formal_charges=charges)

        backbone = self.settings.backbone.build(name="backbone")(graph, mix_embedding=mix_embedding)
        layers = self._source_features(backbone, charges)
        transfer = add_up(
            BondTransfer(split.transfer_block, name=f"bond_transfer_{layer}")(
                features, backbone.edges, graph
            )
            for layer, features in enumerate(layers)
        )
        multipoles = jnp.concatenate(
            [(charges + net_transfer(graph, transfer))[:, None], *self._higher_multipoles(layers)],
            axis=-1,
        )
        multipoles = jnp.where(graph.atom_mask[:, None], multipoles, 0.0)
        polarization = polarization_of(graph, charges, transfer, backbone.edges.vectors)
        polarization += graph.sum_atoms(dipole_cartesian(multipoles)).astype(polarization.dtype)
        outputs = density_outputs(self.settings, graph, backbone, multipoles, polarization)
        if split.polarizability:
            outputs["polarizability"] = graph.sum_atoms(self._polarizability(backbone))
        return outputs

    def _source_features(
        self, backbone: BackboneOutput, charges: Float[Array, "atoms"]
    ) -> list[Features]:
        """Features of each layer from which transfers and multipoles are read."""
        split = self.settings.own
        if not TRANSFER_BLOCKS[split.transfer_block].oxidation_dependent:
            return list(backbone.layers)
        return [
            OxidationStateGate(split.transfer_range, name=f"oxidation_state_gate_{layer}")(
                features, charges
            )
            for layer, features in enumerate(backbone.layers)
        ]

    def _higher_multipoles(self, layers: list[Features]) -> list[Float[Array, "atoms components"]]:
        """Multipoles of degree 1 and higher, summed over layers; an empty list for none."""
        degrees = range(1, self.settings.density.max_l + 1)
        if not degrees:
            return []
        return [
            add_up(
                concatenate_components(
                    LinearReadout(dict.fromkeys(degrees, 1), name=f"multipole_readout_{layer}")(
                        features
                    )
                )[..., 0]
                for layer, features in enumerate(layers)
            )
        ]

    def _polarizability(self, backbone: BackboneOutput) -> Float[Array, "atoms 3 3"]:
        """Contribution of every atom in e Å²/V."""
        return add_up(
            cartesian_tensor(
                PolarizabilityReadout(name=f"polarizability_readout_{layer}")(features)
            )
            for layer, features in enumerate(backbone.layers)
        )
