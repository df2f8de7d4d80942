"""How the self-consistent cycle of a model behaves: solvers side by side, stability, charge."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from jaxtyping import Array, Float

from mace_scf_jax.data.batching import IndexedBatch
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.sizes import merge, required_sizes
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import LocalState, build
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    initial_state,
)
from mace_scf_jax.models.screening import seen_by_multipoles
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.predictor import Notify
from mace_scf_jax.scf import (
    FixedPointProblem,
    FixedPointSolution,
    NewtonKrylov,
    Solver,
    SolverStatus,
    charge_response,
    spectral_radius,
)

SMALLEST_CHARGE_RESPONSE = 1e-3
"""|dQ/dμ| in e/eV below which the Fermi level is hardly determined: 1e-3 e move it by 1 eV."""
SAME_SOLUTION = 1e-4
"""e Å^l; largest difference of multipoles of one solution."""
KRYLOV_STEPS = 20
"""Of the estimate of the spectral radius."""


class NotSelfConsistentError(ValueError):
    """A model has no self-consistent cycle."""


@dataclasses.dataclass(frozen=True)
class SolverRun:
    """How one solver fares with one structure."""

    status: SolverStatus
    steps: int
    evaluations: int
    """Of the map F, and of its linearisation."""
    residual: float
    """Of the multipoles, e Å^l."""
    charge_error: float
    """Wanted charge minus charge, e."""
    fermi_level: float
    """eV."""
    history: tuple[float, ...]
    """Residual before the first step, and after every step."""

    @property
    def has_converged(self) -> bool:
        """Whether the solution was found."""
        return self.status is SolverStatus.CONVERGED


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """How the self-consistent cycle behaves for one structure."""

    location: Location
    formula: str
    num_atoms: int
    total_charge: float
    runs: dict[str, SolverRun]
    """By the name of the solver."""
    spectral_radius: float
    """Estimate of the largest |eigenvalue| of ∂F/∂p, at constant charge without its part that
    changes the charge: how much of an error an undamped step of the cycle keeps."""
    charge_response: float
    """dQ/dμ of the solution in e/eV. A higher Fermi level means more electrons: it is negative."""
    findings: tuple[str, ...]
    """What to know before the solution is trusted."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "file": self.location.file,
            "configuration": self.location.index,
            "formula": self.formula,
            "num_atoms": self.num_atoms,
            "total_charge": self.total_charge,
            "spectral_radius": self.spectral_radius,
            "charge_response": self.charge_response,
            "findings": list(self.findings),
            "solvers": {
                name: dataclasses.asdict(run) | {"status": run.status.name.lower()}
                for name, run in self.runs.items()
            },
        }


def require_cycle(model: Model) -> None:
    """Refuse a model without a self-consistent cycle.

    Raises:
        NotSelfConsistentError: it has none.
    """
    if not model.is_self_consistent:
        raise NotSelfConsistentError(
            f"expected a self-consistent model (FixedPoint), found one of the family "
            f"{model.settings.family}, which has no cycle to look at"
        )


def diagnose(
    model: Model,
    structures: Sequence[Structure],
    *,
    solvers: Mapping[str, Solver],
    batch_size: int = 16,
    notify: Notify | None = None,
) -> list[Diagnosis]:
    """Solve structures with several solvers, and look at the map where the best of them ended.

    Args:
        model: a self-consistent model; charge mode and initial state are those of its ``scf``.
        structures: prepared by the model.
        solvers: by the names under which they are reported.
        batch_size: most structures solved together.
        notify: called with the number of structures that are done, and of all.

    Raises:
        NotSelfConsistentError: the model has no self-consistent cycle.
    """
    require_cycle(model)
    diagnoses: list[Diagnosis | None] = [None] * len(structures)
    functions = _Functions(model)
    for indices, batch in _batches(model, structures, batch_size):
        graph = model.inputs_of(batch)
        local = functions.local(model.parameters, graph)
        solved = {
            name: jax.device_get(functions.solve(model.parameters, local, solver=solver))
            for name, solver in solvers.items()
        }
        best = _nearest([solution for solution, _ in solved.values()])
        radii, responses = jax.device_get(functions.examine(model.parameters, local, *best))
        for index, own in zip(indices, np.flatnonzero(graph.graph_mask).tolist(), strict=True):
            runs = {name: _run(*found, own) for name, found in solved.items()}
            exists = graph.slot_mask[own]
            solutions = {
                name: solution.state[own][exists]
                for name, (solution, _) in solved.items()
                if runs[name].has_converged
            }
            configuration = structures[index].configuration
            diagnoses[index] = Diagnosis(
                location=configuration.location,
                formula=str(Formula.from_list(_symbols(configuration)).format("hill")),
                num_atoms=configuration.num_atoms,
                total_charge=float(best[0][own, :, 0].sum()),
                runs=runs,
                spectral_radius=float(radii[own]),
                charge_response=float(responses[own]),
                findings=tuple(
                    findings_of(runs, solutions, float(radii[own]), float(responses[own]))
                ),
            )
        if notify is not None:
            notify(sum(entry is not None for entry in diagnoses), len(structures))
    return diagnoses


def _batches(
    model: Model, structures: Sequence[Structure], batch_size: int
) -> Iterator[IndexedBatch]:
    """Batches of one padded size: every solver is compiled once."""
    order = np.argsort([entry.num_atoms for entry in structures], kind="stable")
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    members = [[structures[index] for index in chunk] for chunk in chunks]
    sizes = merge(required_sizes(chunk, "per_atom") for chunk in members)
    for chunk, own in zip(chunks, members, strict=True):
        yield IndexedBatch(chunk, collate(own, sizes, dtype=model.dtype))


class _Functions:
    """Compiled parts of a self-consistent model."""

    def __init__(self, model: Model) -> None:
        self.module, self.scf = build(model.settings), model.scf
        self.local = jax.jit(self._local)
        self.solve = jax.jit(self._solve, static_argnames="solver")
        self.examine = jax.jit(self._examine)

    def _local(self, parameters: Any, graph: Graph) -> LocalState:
        graph = seen_by_multipoles(self.module.settings, graph)
        return self.module.apply({"params": parameters}, graph, method="local")

    def _problem(self, parameters: Any, local: LocalState) -> FixedPointProblem:
        return fixed_point_problem(
            self.module, parameters, local, constant_charge=self.scf.constant_charge
        )

    def _solve(
        self, parameters: Any, local: LocalState, *, solver: Solver
    ) -> tuple[FixedPointSolution, Array]:
        """A solution, and the residual before the first step."""
        problem = self._problem(parameters, local)
        start = initial_state(self.module, local, self.scf)
        state, level = local.graph.to_slots(start.multipoles), start.fermi_level
        before = problem.mean_size(problem.evaluate(state, level) - state)
        return solver.find(problem, state, level), before

    def _examine(
        self, parameters: Any, local: LocalState, state: Array, level: Array
    ) -> tuple[Array, Array]:
        """Spectral radius and charge response."""
        problem = self._problem(parameters, local)
        cycle = problem if problem.charge is None else _at_constant_charge(problem, state, level)
        return (
            spectral_radius(cycle, state, level, steps=KRYLOV_STEPS),
            charge_response(problem, state, level, solver=NewtonKrylov()),
        )


def _at_constant_charge(
    problem: FixedPointProblem,
    state: Float[Array, "systems sites components"],
    level: Float[Array, "systems"],
) -> FixedPointProblem:
    """The cycle whose every state gets its charge from the answer w to the Fermi level.

    f ← F(p, μ) + w (Q - Σ F₀) / Σ w₀; errors that change the charge do not survive a step of it.
    """
    levels = problem.at_sites(level)
    _, response = jax.jvp(lambda m: problem.map(state, m), (levels,), (jnp.ones_like(levels),))
    total = problem.charges(response)
    answers = total != 0.0

    def corrected(p: Array, m: Array) -> Array:
        image = problem.map(p, m)
        missing = problem.charge - problem.charges(image)
        shift = jnp.where(answers, missing / jnp.where(answers, total, 1.0), 0.0)
        return image + response * shift[:, None, None]

    return dataclasses.replace(problem, map=corrected, charge=None)


def _nearest(solutions: Sequence[FixedPointSolution]) -> tuple[np.ndarray, np.ndarray]:
    """State and level of the solver that came closest, for each system of the batch."""
    residuals = [
        np.nan_to_num(np.maximum(found.residual, np.abs(found.charge_error)), nan=np.inf)
        for found in solutions
    ]
    choice = np.argmin(residuals, axis=0)
    systems = np.arange(len(choice))
    states = np.stack([solution.state for solution in solutions])
    levels = np.stack([solution.level for solution in solutions])
    return states[choice, systems], levels[choice, systems]


def _run(solution: FixedPointSolution, before: np.ndarray, system: int) -> SolverRun:
    """What a solution says about one system of the batch."""
    history = np.concatenate([before[system : system + 1], solution.history[:, system]])
    moved = np.append(True, history[1:] != history[:-1])  # a system that has ended repeats itself
    return SolverRun(
        status=SolverStatus(solution.status[system]),
        steps=int(solution.steps[system]),
        evaluations=int(solution.evaluations[system]),
        residual=float(solution.residual[system]),
        charge_error=float(solution.charge_error[system]),
        fermi_level=float(solution.level[system]),
        history=tuple(history[moved].tolist()),
    )


def _symbols(configuration: Configuration) -> list[str]:
    return [chemical_symbols[number] for number in configuration.atomic_numbers]


def findings_of(
    runs: Mapping[str, SolverRun],
    solutions: Mapping[str, np.ndarray],
    radius: float,
    response: float,
) -> Iterator[str]:
    """What to know about a structure before its solution is trusted."""
    if not solutions:
        yield "no solver found a solution: what follows is about the state that came closest"
    first, *others = solutions or [None]
    for name in others:
        difference = float(np.max(np.abs(solutions[name] - solutions[first])))
        if difference > SAME_SOLUTION:
            yield (
                f"{first} and {name} found different solutions, by up to {difference:.1e} e Å^l: "
                "the solution is not unique"
            )
    if not np.isfinite(radius) or radius >= 1.0:
        yield (
            f"spectral radius {radius:.2f} of ∂F/∂p: an undamped cycle does not converge, and "
            "the solution may be unstable or not the only one"
        )
    if not np.isfinite(response) or abs(response) < SMALLEST_CHARGE_RESPONSE:
        yield (
            f"dQ/dμ {response:.1e} e/eV: the charge hardly answers to the Fermi level, so that "
            "a given charge hardly determines it"
        )
    elif response > 0.0:
        yield (
            f"dQ/dμ {response:+.2f} e/eV: a higher Fermi level takes electrons away instead of "
            "adding them, which no physical system does"
        )
