"""Weights of PolarMACE in the PyTorch package MACE."""

from __future__ import annotations

from mace_scf_jax.layers.notation import Multiplicities, parse_multiplicities
from mace_scf_jax.models.families.polar_mace.spin_update import (
    ENERGY_WIDTHS,
    INVARIANT_WIDTHS,
    READOUT_CHANNELS,
    SPINS,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.pytorch.layers import (
    Parameters,
    StateDict,
    element_embedding,
    linear,
    nonlinear_readout,
    normalised_network,
    take_blocks,
)


def _of_both_spins(multiplicities: Multiplicities) -> list[tuple[int, int]]:
    """All blocks of one spin, then all of the other."""
    return [*multiplicities.items()] * SPINS


class _Importer:
    """Reads layers of a model whose sizes are known."""

    def __init__(self, state: StateDict, settings: ModelSettings) -> None:
        backbone, receivers = settings.backbone, settings.density.receivers
        self.state = state
        self.num_elements = len(settings.elements)
        self.channels = backbone.channels
        self.features = dict.fromkeys(range(backbone.max_hidden_degree + 1), backbone.channels)
        self.degrees = range(settings.density.max_l + 1)
        self.density = _of_both_spins(dict.fromkeys(self.degrees, 1))
        self.potential = _of_both_spins(
            dict.fromkeys(range(receivers.max_l + 1), len(receivers.widths))
        )

    def channel_products(self, name: str) -> Parameters:
        """Weights of a `ChannelDots` or `ChannelScaling`."""
        shapes = {f"degree_{degree}": (self.channels,) * 2 for degree in self.features}
        return take_blocks(self.state, f"{name}.weight", shapes)

    def update(self, prefix: str) -> Parameters:
        """Weights of a `SpinUpdate`."""
        embedding = f"{prefix}potential_embedding."
        widths = (2 * self.channels, *INVARIANT_WIDTHS, self.channels)
        return {
            "potential": linear(
                self.state, f"{embedding}potential_linear", self.potential, self.features
            ),
            "features": linear(
                self.state, f"{embedding}node_feats_linear", self.features, self.features
            ),
            "multipoles": linear(
                self.state, f"{embedding}charge_embedding", self.density, self.features
            ),
            "element": element_embedding(
                self.state, f"{prefix}source_embedding", self.num_elements, self.channels
            ),
            "dots": self.channel_products(f"{prefix}dot_products"),
            "nonlinearity": normalised_network(self.state, f"{prefix}nonlinearity.net.", widths),
            "scaling": self.channel_products(f"{prefix}tp_out"),
            "readout": nonlinear_readout(
                self.state,
                f"{prefix}readout.",
                self.features,
                dict.fromkeys(self.degrees, READOUT_CHANNELS),
                [*self.density, (0, SPINS)],
                num_hidden=2,
                bias=True,
            ),
        }

    def electron_energy(self, prefix: str) -> Parameters:
        """Weights of an `ElectronEnergy`."""
        widths = (2 * self.channels, *ENERGY_WIDTHS)
        params: Parameters = {"energy": normalised_network(self.state, f"{prefix}mlp.net.", widths)}
        for name, letter, given in (
            ("multipoles", "q", self.density),
            ("potential", "v", self.potential),
        ):
            params[name] = linear(
                self.state, f"{prefix}linear_up_{letter}", given, self.features, bias=True
            )
            params[f"{name}_dots"] = self.channel_products(f"{prefix}dot_products_{letter}")
        return params


def polar_mace(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of a `PolarMACE` beside those of its backbone.

    State dicts hold weights for the electron energy also where it is not used; they are left out.

    Raises:
        WeightImportError: a weight is missing or has the wrong size.
    """
    importer, own = _Importer(state, settings), settings.own
    features, hidden = importer.features, settings.backbone.MLP_irreps
    params: Parameters = {
        "fukui_readout": nonlinear_readout(
            state,
            "fukui_source_map.",
            features,
            parse_multiplicities(hidden, option="MLP_irreps"),
            {0: SPINS},
            num_hidden=2,
            bias=True,
        )
    }
    for layer in range(settings.backbone.num_interactions):
        params[f"spin_multipole_readout_{layer}"] = {
            "linear": linear(state, f"lr_source_maps.{layer}.linear", features, importer.density)
        }
        params[f"feature_mixer_{layer}"] = linear(
            state, f"layer_feature_mixer.linears.{layer}", features, features
        )
    for step in range(own.num_recursion_steps):
        params[f"spin_update_{step}"] = importer.update(f"field_dependent_charges_maps.{step}.")
    electron_energy = importer.electron_energy("local_electron_energy.")
    if own.include_field_energy:
        params["electron_energy"] = electron_energy
    return params
