"""Small fixed-point problems whose solutions are known."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from mace_scf_jax.scf import FixedPointProblem

COMPONENTS = 2


@dataclasses.dataclass(frozen=True)
class AffineSystem:
    """F(p, μ) = A p + B μ + c of one system, p and μ flattened over its sites."""

    matrix: np.ndarray
    response: np.ndarray
    constant: np.ndarray

    @property
    def num_sites(self) -> int:
        return self.response.shape[1]

    def solution(self, level: float) -> np.ndarray:
        unknowns = np.eye(len(self.matrix)) - self.matrix
        right = self.response @ np.full(self.num_sites, level) + self.constant
        return np.linalg.solve(unknowns, right).reshape(-1, COMPONENTS)

    def solution_with_charge(self, charge: float) -> tuple[np.ndarray, float]:
        at_zero = self.solution(0.0)
        slope = self.solution(1.0) - at_zero
        level = (charge - at_zero[:, 0].sum()) / slope[:, 0].sum()
        return at_zero + level * slope, level


def affine_system(seed: int, num_sites: int, *, radius: float) -> AffineSystem:
    """A random system whose matrix has the given spectral radius, with a charge that falls as the
    level rises."""
    rng = np.random.default_rng(seed)
    size = num_sites * COMPONENTS
    matrix = rng.normal(size=(size, size))
    matrix *= radius / np.max(np.abs(np.linalg.eigvals(matrix)))
    response = np.zeros((num_sites, COMPONENTS, num_sites))
    for site in range(num_sites):
        response[site, 0, site] = -rng.uniform(0.1, 0.3)
        response[site, 1, site] = 0.1 * rng.normal()
    return AffineSystem(matrix, response.reshape(size, num_sites), 0.1 * rng.normal(size=size))


def problem_of(
    systems: list[AffineSystem], charges: list[float] | None, *, room: int | None = None
) -> FixedPointProblem:
    """All systems in one problem, and one more without sites; all have room for some sites."""
    sizes = [system.num_sites for system in systems]
    room = max(sizes) if room is None else room
    size = room * COMPONENTS
    matrix = np.zeros((len(systems) + 1, size, size))
    response = np.zeros((len(systems) + 1, size, room))
    constant = np.zeros((len(systems) + 1, size))
    for index, (system, sites) in enumerate(zip(systems, sizes, strict=True)):
        own = slice(sites * COMPONENTS)
        matrix[index, own, own] = system.matrix
        response[index, own, :sites] = system.response
        constant[index, own] = system.constant

    def step(state, levels):
        flat = state.reshape(len(state), -1)
        image = jnp.einsum("sij,sj->si", matrix, flat) + constant
        return (image + jnp.einsum("sij,sj->si", response, levels)).reshape(state.shape)

    return FixedPointProblem(
        map=step,
        site_mask=jnp.arange(room) < jnp.asarray([*sizes, 0])[:, None],
        charge=None if charges is None else jnp.asarray([*charges, 0.0]),
    )


def zeros(problem: FixedPointProblem) -> jnp.ndarray:
    return jnp.zeros((*problem.site_mask.shape, COMPONENTS))


def states_of(problem: FixedPointProblem, state) -> list[np.ndarray]:
    """The state of every system without the room for further sites."""
    return [
        np.asarray(row)[: int(count)] for row, count in zip(state, problem.num_sites(), strict=True)
    ]
