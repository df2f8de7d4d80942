"""Small fixed-point problems whose solutions are known."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from mace_scf_jax.scf.fixed_point import FixedPointProblem

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
    systems: list[AffineSystem], charges: list[float] | None, *, padding: int = 0
) -> FixedPointProblem:
    """All systems in one problem, with masked sites that belong to one more system."""
    sizes = [system.num_sites for system in systems]
    num_sites = sum(sizes)
    matrix = np.zeros(((num_sites + padding) * COMPONENTS,) * 2)
    response = np.zeros((len(matrix), num_sites + padding))
    constant = np.zeros(len(matrix))
    start = 0
    for system, size in zip(systems, sizes, strict=True):
        rows = slice(start * COMPONENTS, (start + size) * COMPONENTS)
        matrix[rows, rows] = system.matrix
        response[rows, start : start + size] = system.response
        constant[rows] = system.constant
        start += size
    matrix, response, constant = map(jnp.asarray, (matrix, response, constant))

    def step(state, levels):
        return (matrix @ state.reshape(-1) + response @ levels + constant).reshape(state.shape)

    owner = np.repeat(np.arange(len(systems) + 1), [*sizes, padding])
    return FixedPointProblem(
        map=step,
        system_of_site=jnp.asarray(owner),
        site_mask=jnp.asarray(np.arange(num_sites + padding) < num_sites),
        num_systems=len(systems) + 1,
        charge=None if charges is None else jnp.asarray([*charges, 0.0]),
    )


def zeros(problem: FixedPointProblem) -> jnp.ndarray:
    return jnp.zeros((len(problem.site_mask), COMPONENTS))
