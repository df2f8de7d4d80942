"""Readouts: from node features to scalars or multipoles."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mace_scf_jax.layers.couplings import coupling
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.linear import EquivariantLinear
from mace_scf_jax.layers.notation import Multiplicities

SECOND_MOMENT_SCALE = {
    "silu": 1.6791767923989418,
    "tanh": 1.5937334472592695,
    "abs": 1.001110600838467,
    "sigmoid": 1.8467055342154763,
}
"""1/√⟨f(z)²⟩, z normal. e3nn estimates it from 10⁶ fixed random numbers; trained weights contain
that estimate, so its value is kept (the exact constant of silu is 1.67653…)."""

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "abs": jnp.abs,
    "sigmoid": jax.nn.sigmoid,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The activation of that name with unit second moment; ``None`` is the identity.

    Args:
        name: silu, tanh, abs, sigmoid or None.

    Raises:
        ValueError: an unknown name.
    """
    if name == "None":
        return lambda x: x
    if name not in _FUNCTIONS:
        raise ValueError(f"activation: expected one of {', '.join(_FUNCTIONS)}, found {name!r}")
    function, scale = _FUNCTIONS[name], SECOND_MOMENT_SCALE[name]
    return lambda x: scale * function(x)


class GatedNonlinearity(nn.Module):
    """Activation of the scalars; higher degrees are multiplied by sigmoids of gate scalars.

    Attributes:
        multiplicities: channels per degree of the output.
        gate: activation of the scalars.
    """

    multiplicities: Multiplicities
    gate: str

    @staticmethod
    def with_gates(multiplicities: Multiplicities) -> Multiplicities:
        """Channels that the input needs: the scalars are followed by one gate per channel."""
        gates = sum(count for degree, count in multiplicities.items() if degree > 0)
        return {**multiplicities, 0: multiplicities.get(0, 0) + gates}

    def __call__(self, features: Features) -> Features:
        """Apply to features with the gates behind the scalars."""
        open_gate = activation("sigmoid")
        scalars = self.multiplicities.get(0, 0)
        gated = {0: activation(self.gate)(features[0][..., :scalars])}
        start = scalars
        for degree, count in self.multiplicities.items():
            if degree > 0:
                gates = features[0][..., start : start + count]
                gated[degree] = features[degree] * open_gate(gates)
                start += count
        return gated


class LinearReadout(nn.Module):
    """Linear readout.

    Attributes:
        multiplicities: channels per degree of the output.
    """

    multiplicities: Multiplicities

    @nn.compact
    def __call__(self, features: Features) -> Features:
        """Read out features, degree -> [atoms, 2l+1, channels]."""
        return EquivariantLinear(self.multiplicities, name="linear")(features)


class NonlinearReadout(nn.Module):
    """Readout with hidden gated layers.

    Attributes:
        multiplicities: channels per degree of the output.
        hidden: channels per degree of the hidden layers.
        gate: activation.
        num_hidden: number of hidden layers.
        bias: add a bias to the scalars in every layer but the first.
    """

    multiplicities: Multiplicities
    hidden: Multiplicities
    gate: str = "silu"
    num_hidden: int = 1
    bias: bool = False

    @nn.compact
    def __call__(self, features: Features, mask: Array | None = None) -> Features:
        """Read out features, degree -> [atoms, 2l+1, channels].

        Args:
            mask: factors [atoms, channels] on the hidden scalars of every layer.
        """
        nonlinearity = GatedNonlinearity(self.hidden, self.gate)
        for index in range(self.num_hidden):
            wide = GatedNonlinearity.with_gates(self.hidden)
            bias = self.bias and index > 0
            features = EquivariantLinear(wide, bias, name=f"hidden_{index}")(features)
            features = nonlinearity(features)
            if mask is not None:
                features = features | {0: mask[:, None] * features[0]}
        return EquivariantLinear(self.multiplicities, self.bias, name="linear")(features)


class PolarizabilityReadout(nn.Module):
    """Scalar and traceless symmetric part of a polarizability, quadratic plus linear in features.

    ``Linear2(Linear1(h) ⊙ Linear1(h)) + LinearBypass(h)``, the product channel by channel between
    equal degrees.
    """

    @nn.compact
    def __call__(self, features: Features) -> Features:
        """Read out degrees 0 and 2, each [atoms, 2l+1, 1]."""
        same = {degree: value.shape[-1] for degree, value in features.items()}
        mixed = EquivariantLinear(same, name="linear_1")(features)
        products: dict[int, list] = {}
        for degree, value in mixed.items():
            for degree_out in (0, 2):
                if degree_out <= 2 * degree:
                    coefficients = jnp.asarray(coupling(degree, degree, degree_out), value.dtype)
                    products.setdefault(degree_out, []).append(
                        jnp.einsum("amc,anc,mno->aoc", value, value, coefficients)
                    )
        quadratic = {degree: jnp.concatenate(parts, axis=-1) for degree, parts in products.items()}
        output = {0: 1, 2: 1}
        curved = EquivariantLinear(output, name="linear_2")(quadratic)
        straight = EquivariantLinear(output, name="linear_bypass")(features)
        return {degree: curved[degree] + straight[degree] for degree in output}
