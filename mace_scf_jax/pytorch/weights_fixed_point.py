"""Weights of FixedPoint in the PyTorch package MACE_SCF."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mace_scf_jax.layers.notation import Multiplicities, parse_multiplicities
from mace_scf_jax.models.families.fixed_point.choices import SCALED_UPDATES
from mace_scf_jax.models.families.fixed_point.density_update import MAX_EDGE_DEGREE, RADIAL_WIDTHS
from mace_scf_jax.models.families.fixed_point.field_readouts import (
    ENERGY_WIDTHS,
    MANY_BODY_CORRELATION,
    PRODUCT_CHANNELS,
    SCALAR,
)
from mace_scf_jax.models.families.fixed_point.invariant_nonlinearities import INVARIANT_WIDTHS
from mace_scf_jax.models.families.fixed_point.potential_embedding import TANH_WIDTHS
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.pytorch.configuration import UPDATE
from mace_scf_jax.pytorch.layers import (
    Parameters,
    StateDict,
    element_linear,
    fully_connected_tensor_product,
    interaction,
    linear,
    nonlinear_readout,
    normalised_network,
    product_basis,
    radial_network,
    take,
    take_blocks,
)

_READOUT = "local_electron_energy"


class _Importer:
    """Reads layers of a model whose sizes are known."""

    def __init__(self, state: StateDict, settings: ModelSettings) -> None:
        backbone, receivers = settings.backbone, settings.electrostatics.features
        self.state = state
        self.choices = settings.own
        self.num_elements = len(settings.elements)
        self.num_layers = backbone.num_interactions
        self.channels = backbone.channels
        self.radial_basis = backbone.num_radial_basis
        self.features = dict.fromkeys(range(backbone.max_hidden_degree + 1), backbone.channels)
        self.multipoles = dict.fromkeys(range(settings.electrostatics.max_l + 1), 1)
        self.potential = dict.fromkeys(range(receivers.max_l + 1), len(receivers.widths))
        self.hidden = parse_multiplicities(backbone.MLP_irreps, option="MLP_irreps")

    def channel_products(self, name: str) -> Parameters:
        """Weights of a `ChannelDots` or `ChannelScaling`."""
        shapes = {f"degree_{degree}": (self.channels,) * 2 for degree in self.features}
        return take_blocks(self.state, f"{name}.weight", shapes)

    def embedding(self, name: str, potential: Multiplicities, kind: str) -> Parameters:
        """Weights of a potential embedding."""
        params: Parameters = {}
        if kind == "TanhPotentialEmbedding":
            params["potential"] = self._tanh_linear(f"{name}.linear", potential)
        else:
            params["potential"] = element_linear(
                self.state, f"{name}.prod", potential, self.features, self.num_elements
            )
        if kind != "LinearPotentialEmbedding":
            params["features"] = linear(
                self.state, f"{name}.node_feats_linear", self.features, self.features
            )
        return params

    def _tanh_linear(self, name: str, potential: Multiplicities) -> Parameters:
        """Linear map of features repeated for every scale; e3nn keeps one block for each."""
        scales = range(len(TANH_WIDTHS))
        blocks = {
            f"{scale}_{degree}": (potential[degree], self.channels)
            for scale in scales
            for degree in potential
            if degree in self.features
        }
        cut = take_blocks(self.state, f"{name}.weight", blocks)
        params: Parameters = {"bias": take(self.state, f"{name}.bias", (self.channels,))}
        for degree in potential:
            if degree in self.features:
                parts = [cut[f"{scale}_{degree}"] for scale in scales]
                params[f"degree_{degree}"] = np.concatenate(parts)
        return params

    def many_body(self, name: str, correlation: int) -> Parameters:
        """Weights of a `ManyBodyEmbedding`."""
        messages = dict.fromkeys(range(MAX_EDGE_DEGREE + 1), self.channels)
        return {
            "interaction": interaction(
                self.state,
                f"{name}.interaction.",
                kind="RealAgnosticDensityResidualInteractionBlock",
                features=self.features,
                edge_multiplicities=self.features,
                skip_multiplicities=self.features,
                max_edge_degree=MAX_EDGE_DEGREE,
                radial_widths=(self.radial_basis, *RADIAL_WIDTHS),
                num_elements=self.num_elements,
            ),
            "own": linear(
                self.state,
                f"{name}.central_atom_mixer.linear",
                self.features,
                messages,
                bias=True,
            ),
            "product": product_basis(
                self.state,
                f"{name}.product.",
                channels=self.channels,
                max_degree_in=MAX_EDGE_DEGREE,
                max_degree_out=max(self.features),
                correlation=correlation,
                num_elements=self.num_elements,
            ),
        }

    def response(
        self, name: str, outputs: Multiplicities, nonlinearity: str, layer: str
    ) -> Parameters:
        """Weights of an `InvariantResponse`; ``layer`` is the name of its nonlinearity."""
        return {
            "dots": self.channel_products(f"{name}.dot_products"),
            **self.scaled(name, outputs, nonlinearity, layer),
        }

    def scaled(
        self, name: str, outputs: Multiplicities, nonlinearity: str, layer: str
    ) -> Parameters:
        """Weights that every response to embedded features has."""
        params: Parameters = {
            "scaling": self.channel_products(f"{name}.tp_out"),
            "output": element_linear(
                self.state,
                f"{name}.element_select_out",
                self.features,
                outputs,
                self.num_elements,
            ),
        }
        network = f"{name}.{layer}.mlp."
        widths = (self.channels, *INVARIANT_WIDTHS, self.channels)
        if nonlinearity == "MLPNonLinearity":
            params["nonlinearity"] = radial_network(self.state, network, widths)
        elif nonlinearity == "ShallowNonLinearity":
            shallow = (self.channels, self.channels)
            params["nonlinearity"] = radial_network(self.state, network, shallow)
        elif nonlinearity == "SkipMLPLinearity":
            params["nonlinearity"] = normalised_network(self.state, f"{network}net.", widths)
        return params

    def scaled_response(self) -> Parameters:
        """Weights of a `ScaledResponse`."""
        pairs = {f"degrees_{pair}": (self.channels,) * 2 for pair in ("00", "11", "01", "10")}
        params = self.scaled(UPDATE, self.multipoles, self.choices.nonlinearity, "nonlinearity")
        params["products"] = take_blocks(self.state, f"{UPDATE}.tp_skip.weight", pairs)
        if self.choices.update == "OneBodyScaledDPNonLinearUpdate":
            params["dots"] = self.channel_products(f"{UPDATE}.dot_products")
        return params

    def density_update(self) -> Parameters:
        """Weights of a `DensityUpdate`."""
        choices = self.choices
        many_body = choices.update == "ManyBodyUpdate"
        params: Parameters = {
            "potential_embedding": self.embedding(
                f"{UPDATE}.potential_embedding", self.potential, choices.potential_embedding
            ),
        }
        if choices.update in SCALED_UPDATES:
            params["response"] = self.scaled_response()
        else:
            layer = "activation" if many_body else "nonlinearity"
            params["response"] = self.response(UPDATE, self.multipoles, choices.nonlinearity, layer)
        if many_body:
            params["many_body"] = self.many_body(UPDATE, choices.correlation)
        return params

    def quadratic_in_multipoles_and_potential(self) -> Parameters:
        """Weights of a `StrictQuadraticFieldEnergyReadout`."""
        scalars = {0: PRODUCT_CHANNELS[0]}
        return {
            "multipoles": self._linear("linear_qa", self.multipoles, PRODUCT_CHANNELS),
            "potential": self._linear("linear_va", self.potential, PRODUCT_CHANNELS),
            "product": self._product("qv_tp", PRODUCT_CHANNELS, PRODUCT_CHANNELS, scalars),
            "energy": self._product("tp_down", scalars, self.features, SCALAR),
        }

    def network_of_invariants(self) -> Parameters:
        """Weights of a `OneBodyMLPFieldReadout`."""
        return {
            "multipoles": self._linear("linear_up_q", self.multipoles, self.features, bias=True),
            "potential": self._linear("linear_up_v", self.potential, self.features, bias=True),
            "multipole_dots": self.channel_products(f"{_READOUT}.dot_products_q"),
            "potential_dots": self.channel_products(f"{_READOUT}.dot_products_v"),
            "energy": radial_network(
                self.state, f"{_READOUT}.mlp.", (self.channels, *ENERGY_WIDTHS)
            ),
        }

    def linear_in_multipoles(self) -> Parameters:
        """Weights of a `LinearChargesEnergyReadout`."""
        return {"energy": self._product("tp", self.multipoles, self.features, SCALAR)}

    def quadratic_in_multipoles(self) -> Parameters:
        """Weights of a `QuadraticChargesEnergyReadout`."""
        wide = PRODUCT_CHANNELS
        return {
            "multipoles": self._linear("linear_qa", self.multipoles, wide, bias=True),
            "local_multipoles": self._linear("linear_qb", self.multipoles, wide, bias=True),
            "product": self._product("qq_tp", wide, wide, wide),
            "energy": self._product("tp_down", wide, self.features, SCALAR),
        }

    def many_body_of_multipoles(self) -> Parameters:
        """Weights of a `ManyBodyChargesReadout` that does not read the potential."""
        kind = "BiasedLinearPotentialEmbedding"
        return {
            "multipole_embedding": self.embedding(
                f"{_READOUT}.charges_embedding", self.multipoles, kind
            ),
            "many_body": self.many_body(_READOUT, MANY_BODY_CORRELATION),
            "response": self.response(_READOUT, SCALAR, "MLPNonLinearity", "activation"),
        }

    def many_body_of_multipoles_and_potential(self) -> Parameters:
        """Weights of a `ManyBodyChargesReadout` that reads the potential."""
        kind = "BiasedLinearPotentialEmbedding"
        embedding = self.embedding(f"{_READOUT}.field_embedding", self.potential, kind)
        return {"potential_embedding": embedding, **self.many_body_of_multipoles()}

    def _linear(
        self, name: str, inputs: Multiplicities, outputs: Multiplicities, *, bias: bool = False
    ) -> Parameters:
        return linear(self.state, f"{_READOUT}.{name}", inputs, outputs, bias=bias)

    def _product(
        self, name: str, left: Multiplicities, right: Multiplicities, outputs: Multiplicities
    ) -> Parameters:
        return fully_connected_tensor_product(
            self.state, f"{_READOUT}.{name}", left, right, outputs
        )

    def local_readout(self, layer: int) -> Parameters:
        """Weights of the readout of local multipoles from one layer."""
        name = f"lr_source_maps.{layer}."
        if self.choices.linear_local_multipoles:
            return {"linear": linear(self.state, f"{name}linear", self.features, self.multipoles)}
        return nonlinear_readout(
            self.state,
            name,
            self.features,
            self.hidden,
            self.multipoles,
            num_hidden=2,
        )


_READOUTS: dict[str, Callable[[_Importer], Parameters]] = {
    "StrictQuadraticFieldEnergyReadout": _Importer.quadratic_in_multipoles_and_potential,
    "OneBodyMLPFieldReadout": _Importer.network_of_invariants,
    "LinearChargesEnergyReadout": _Importer.linear_in_multipoles,
    "QuadraticChargesEnergyReadout": _Importer.quadratic_in_multipoles,
    "ManyBodyChargesReadout": _Importer.many_body_of_multipoles,
    "ManyBodyChargesFieldReadout": _Importer.many_body_of_multipoles_and_potential,
}


def fixed_point(state: StateDict, settings: ModelSettings) -> Parameters:
    """Parameters of a `FixedPoint` beside those of its backbone.

    Args:
        settings: of a model with fixed-point settings.

    Raises:
        WeightImportError: a weight is missing or has the wrong size.
    """
    importer = _Importer(state, settings)
    params: Parameters = {"density_update": importer.density_update()}
    for layer in range(importer.num_layers):
        params[f"multipole_readout_{layer}"] = importer.local_readout(layer)
        params[f"feature_mixer_{layer}"] = linear(
            state, f"layer_feature_mixer.linears.{layer}", importer.features, importer.features
        )
    if settings.own.field_readout in _READOUTS:
        params["field_readout"] = _READOUTS[settings.own.field_readout](importer)
    return params
