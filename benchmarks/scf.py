"""Evaluations that solvers of fixed points need, on the models of reference files.

    python benchmarks/scf.py FILE.npz ... [--tolerance 1e-8] [--response 1 3 8] [--constant-level]

Small graphs of one-body updates have a preconditioner, (1 - ∂F/∂p)⁻¹ at the start; the last column
is `auto` without it, as for large graphs. Every search starts from the local multipoles and ends
when the mean of |F(p, μ) - p| of every structure is below the tolerance. Evaluations of F and of
its linearisation count alike, that of the response to the Fermi level included. A scaled response
multiplies all multipoles that answer the potential, F - p_local.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mace_scf_jax.models import build
from mace_scf_jax.models.families.fixed_point.response_slopes import response_slopes
from mace_scf_jax.models.families.fixed_point.self_consistency import fixed_point_problem
from mace_scf_jax.pytorch.verification.fixed_point import reference_graph, reference_settings
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters
from mace_scf_jax.scf import (
    Anderson,
    Auto,
    Dense,
    FixedPointProblem,
    LinearMixing,
    NewtonKrylov,
    SlopePreconditioner,
    Solver,
    SolverStatus,
    spectral_radius,
)

WITHOUT_PRECONDITIONER = "auto, no matrix"


def solvers(tolerance: float) -> dict[str, Solver]:
    """The columns of the table; mixing sees a fraction of the residual in its steps."""
    return {
        "mixing 0.3": LinearMixing(max_steps=400, mixing=0.3, tolerance=0.3 * tolerance),
        "mixing 0.2": LinearMixing(max_steps=400, mixing=0.2, tolerance=0.2 * tolerance),
        "anderson": Anderson(tolerance=tolerance),
        "newton_krylov": NewtonKrylov(tolerance=tolerance),
        "dense": Dense(tolerance=tolerance),
        "auto": Auto(tolerance=tolerance),
        WITHOUT_PRECONDITIONER: Auto(tolerance=tolerance),
    }


class Case:
    """A model and its batch, with the response to the potential scaled by a factor.

    Args:
        path: of the reference file.
        constant_charge: whether Fermi levels are solved for.
    """

    def __init__(self, path: str, *, constant_charge: bool) -> None:
        file = read_reference_file(path)
        settings = reference_settings(file.meta)
        self.graph = reference_graph(file, settings)
        self.num_systems = len(file.inputs["ptr"]) - 1
        self.module, self.constant_charge = build(settings), constant_charge
        self.params = import_parameters(file.state, settings)
        self.local = jax.jit(
            lambda params, graph: self.module.apply({"params": params}, graph, method="local")
        )(self.params, self.graph)
        self.start = self.graph.to_slots(self.local.multipoles)

    def problem(self, factor: jax.Array) -> FixedPointProblem:
        """The equations with a scaled response."""
        problem = fixed_point_problem(
            self.module, self.params, self.local, constant_charge=self.constant_charge
        )
        levels = jnp.asarray(self.graph.fermi_level)
        slopes = response_slopes(
            self.module, self.params, self.local, self.local.multipoles, levels
        )
        start = self.start
        return dataclasses.replace(
            problem,
            map=lambda p, m: start + factor * (problem.map(p, m) - start),
            preconditioner=None
            if slopes is None
            else SlopePreconditioner.of_slopes(factor * slopes),
        )

    def evaluations(
        self, solver: Solver, factors: list[float], *, preconditioned: bool
    ) -> list[str]:
        """Median and largest number of evaluations for every factor, and how many failed."""
        levels = jnp.asarray(self.graph.fermi_level)

        @jax.jit
        def find(factor):
            problem = self.problem(factor)
            if not preconditioned:
                problem = dataclasses.replace(problem, preconditioner=None)
            return solver.find(problem, self.start, levels)

        cells = []
        for factor in factors:
            found = find(jnp.asarray(factor))
            status = np.asarray(found.status)[: self.num_systems]
            counts = np.asarray(found.evaluations)[: self.num_systems]
            good = status == SolverStatus.CONVERGED
            cell = f"{np.median(counts[good]):.0f} / {counts[good].max()}" if good.any() else "–"
            cells.append(cell if good.all() else f"{cell} ({np.sum(~good)} fail)")
        return cells

    def radius(self, factors: list[float]) -> list[str]:
        """Largest |eigenvalue| of ∂F/∂p at the local multipoles for every factor."""
        levels = jnp.asarray(self.graph.fermi_level)

        @jax.jit
        def compute(factor):
            return spectral_radius(self.problem(factor), self.start, levels, steps=40)

        return [f"{compute(jnp.asarray(f))[: self.num_systems].max():.2f}" for f in factors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="reference files of fixed-point models")
    parser.add_argument("--tolerance", type=float, default=1e-8)
    parser.add_argument("--response", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--constant-level", action="store_true")
    given = parser.parse_args()
    columns = solvers(given.tolerance)
    table = Table("model", "response", "radius", *columns, title="evaluations: median / most")
    for path in given.files:
        case = Case(path, constant_charge=not given.constant_level)
        cells = [case.radius(given.response)]
        cells += [
            case.evaluations(solver, given.response, preconditioned=name != WITHOUT_PRECONDITIONER)
            for name, solver in columns.items()
        ]
        for index, factor in enumerate(given.response):
            table.add_row(path, f"×{factor:g}", *(column[index] for column in cells))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
