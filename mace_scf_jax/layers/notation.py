"""How options tell features and activations: irreps in the notation of e3nn, names of gates."""

from __future__ import annotations

import re
from collections.abc import Mapping

GATES = ("silu", "tanh", "abs", "None")
"""Values of the option ``gate``."""

Multiplicities = Mapping[int, int]
"""Degree l -> number of channels."""


_IRREP = re.compile(r"\s*(?:(?P<channels>\d+)\s*x\s*)?(?P<degree>\d+)(?P<parity>[eo])\s*")


class IrrepsError(ValueError):
    """An irreps string describes features that the models do not have."""


def parse_multiplicities(irreps: str, *, option: str) -> Multiplicities:
    """Channels per degree of an irreps string such as ``16x0e + 16x1o``.

    Args:
        irreps: irreps in the notation of e3nn.
        option: name of the option, for messages.

    Raises:
        IrrepsError: not an irreps string, or a parity other than (-1)^l.
    """
    multiplicities: dict[int, int] = {}
    for term in irreps.split("+"):
        parts = _IRREP.fullmatch(term)
        if parts is None:
            raise IrrepsError(
                f"{option}: expected irreps such as '32x0e + 32x1o', found {irreps!r}"
            )
        degree, parity = int(parts["degree"]), parts["parity"]
        if parity != "eo"[degree % 2]:
            raise IrrepsError(
                f"{option}: {degree}{parity} has not the natural parity (-1)^l of degree {degree}; "
                f"expected 0e, 1o, 2e, 3o, found {irreps!r}"
            )
        channels = int(parts["channels"] or 1)
        multiplicities[degree] = multiplicities.get(degree, 0) + channels
    if not any(multiplicities.values()):
        raise IrrepsError(f"{option}: expected at least one channel, found {irreps!r}")
    return dict(sorted(multiplicities.items()))


def parse_uniform_irreps(irreps: str, *, option: str) -> tuple[int, int]:
    """Channels and highest degree of irreps with equal multiplicity in l = 0 … L.

    Args:
        irreps: irreps in the notation of e3nn.
        option: name of the option, for messages.

    Returns:
        The number of channels of every degree, and L.

    Raises:
        IrrepsError: degrees are left out or differ in multiplicity.
    """
    multiplicities = parse_multiplicities(irreps, option=option)
    max_degree = max(multiplicities)
    channels = multiplicities.get(0, 0)
    uniform = dict.fromkeys(range(max_degree + 1), channels)
    if channels == 0 or multiplicities != uniform:
        raise IrrepsError(
            f"{option}: expected the same number of channels in every degree 0 … {max_degree}, "
            f"such as '{channels or 32}x0e + {channels or 32}x1o', found {irreps!r}"
        )
    return channels, max_degree
