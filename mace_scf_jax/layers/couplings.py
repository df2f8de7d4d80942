"""Coupling coefficients of SO(3): Wigner 3j symbols and their symmetric powers."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from mace_scf_jax.layers.wigner import wigner_3j


def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """Coupling tensor l1 ⊗ l2 → l3 in component normalisation, √(2 l3 + 1) · 3j."""
    return np.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)


@dataclasses.dataclass(frozen=True)
class Chain:
    """A way to couple equal factors from left to right: ((l1 ⊗ l2 → l12) ⊗ l3 → l123) …"""

    first: int
    """Degree of the first factor."""
    steps: tuple[tuple[int, int], ...] = ()
    """Degree of the next factor, and degree of the result of coupling it."""

    @property
    def order(self) -> int:
        """Number of factors."""
        return 1 + len(self.steps)

    @property
    def degree(self) -> int:
        """Degree of the result."""
        return self.steps[-1][1] if self.steps else self.first

    @property
    def parity(self) -> int:
        """Parity of the result; every factor has the natural parity (-1)^l."""
        return (-1) ** (self.first + sum(factor for factor, _ in self.steps))

    @property
    def prefix(self) -> Chain:
        """The chain without its last factor."""
        return Chain(self.first, self.steps[:-1])

    def coupled_with(self, factor: int, result: int) -> Chain:
        """The chain with one more factor."""
        return Chain(self.first, (*self.steps, (factor, result)))

    def last_coupling(self) -> np.ndarray:
        """Coupling of the last step, [left, factor, result]."""
        factor, result = self.steps[-1]
        left = self.prefix.degree
        # the order of the degrees decides the sign if their sum is odd
        symbol = wigner_3j(result, left, factor)
        return np.sqrt(2 * result + 1) * np.transpose(symbol, (1, 2, 0))


@functools.cache
def coupling_chains(max_degree: int, degree_out: int, order: int) -> tuple[Chain, ...]:
    """All chains of ``order`` factors of degrees 0 … max_degree that end in ``degree_out``.

    The result has natural parity; intermediate results may have either.

    Returns:
        The chains in the order in which the PyTorch package MACE numbers its coupling paths.

    Source:
        Batatia et al., MACE, NeurIPS 2022, eq. 10–11.
    """
    chains = [Chain(degree) for degree in range(max_degree + 1)]
    for _ in range(order - 1):
        chains = [
            chain.coupled_with(factor, result)
            for chain in chains
            for factor in range(max_degree + 1)
            for result in range(abs(chain.degree - factor), chain.degree + factor + 1)
        ]
        chains.sort(key=lambda chain: (chain.degree, chain.parity))
    natural = (degree_out, (-1) ** degree_out)
    return tuple(chain for chain in chains if (chain.degree, chain.parity) == natural)


def chain_values(chain: Chain, factors: np.ndarray) -> np.ndarray:
    """Result of coupling equal factors along a chain.

    Args:
        chain: the chain.
        factors: components of degrees 0, 1, … one after the other, [samples, components].

    Returns:
        Array [samples, 2l + 1], l the degree of the chain.
    """
    if not chain.steps:
        return factors[:, component_slice(chain.first)]
    return np.einsum(
        "sl,sf,lfo->so",
        chain_values(chain.prefix, factors),
        factors[:, component_slice(chain.steps[-1][0])],
        chain.last_coupling(),
    )


def component_slice(degree: int) -> slice:
    """Where the components of a degree stand among those of degrees 0, 1, …"""
    return slice(degree**2, (degree + 1) ** 2)


@functools.cache
def independent_chains(
    max_degree: int, degree_out: int, order: int
) -> tuple[tuple[Chain, ...], np.ndarray]:
    """Chains that span all polynomials which couple equal factors to ``degree_out``.

    Because the factors are equal, most of the chains of `coupling_chains` are linear combinations
    of few of them: 8 of 23 are independent for three factors of degree ≤ 3 coupled to a scalar.

    Returns:
        The independent chains, and the matrix [independent, all] that expresses every chain of
        `coupling_chains` by them.
    """
    chains = coupling_chains(max_degree, degree_out, order)
    if not chains:
        return (), np.zeros((0, 0))
    # polynomials are equal if their values at enough random points are
    points = np.random.default_rng(0).normal(size=(4 * len(chains) + 8, (max_degree + 1) ** 2))
    values = np.stack([chain_values(chain, points).ravel() for chain in chains], axis=-1)
    scale = np.sqrt(np.mean(values**2, axis=0))
    cheapest_first = sorted(range(len(chains)), key=lambda i: _cost(chains[i]))
    chosen: list[int] = []
    basis = np.zeros((values.shape[0], 0))
    for index in cheapest_first:
        if scale[index] < _NEGLIGIBLE:
            continue
        candidate = values[:, index] / np.linalg.norm(values[:, index])
        for _ in range(2):  # orthogonalise twice for full precision
            candidate = candidate - basis @ (basis.T @ candidate)
        if np.linalg.norm(candidate) > _INDEPENDENT:
            chosen.append(index)
            basis = np.column_stack([basis, candidate / np.linalg.norm(candidate)])
    expressed = np.linalg.lstsq(values[:, chosen], values, rcond=None)[0]
    expressed[np.abs(expressed) < _NEGLIGIBLE] = 0.0
    return tuple(chains[index] for index in chosen), expressed


_INDEPENDENT = 1e-6
"""Relative remainder above which a polynomial counts as independent of others."""
_NEGLIGIBLE = 1e-12


def _cost(chain: Chain) -> tuple[int, ...]:
    """Work of evaluating a chain: sizes of its intermediate results, then degrees for order."""
    sizes = [2 * result + 1 for _, result in chain.steps]
    return (sum(sizes), chain.first, *(degree for step in chain.steps for degree in step))
