"""How well linear mixing converges on a trained model: the summary at the end of a run.

Linear mixing is the procedure of the PyTorch reference and the plainest of all; where it converges
in few steps, the response of the model to its own potential is weak and well behaved, and where it
diverges, other solvers still find solutions, but with care. Each structure is judged by itself.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Int
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.graph import Graph
from mace_scf_jax.models import FixedPoint, SelfConsistency
from mace_scf_jax.models.families.fixed_point.self_consistency import (
    fixed_point_problem,
    initial_state,
)
from mace_scf_jax.models.screening import seen_by_multipoles
from mace_scf_jax.scf import LinearMixing, SolverStatus
from mace_scf_jax.training.loop.fixed_point_training import FixedPointTraining
from mace_scf_jax.training.optimise.parameter_groups import Parameters

NUM_SCF_STEPS = 100
SCF_TOLERANCE = 1e-7
MIXING = 0.2
"""Mixing parameter that is tried, unless the stage mixed less."""
CHARGE_MODES = {"Constant-Fermi": False, "Constant-charge": True}
"""Headings of the tables; whether the Fermi levels are solved for."""

Sets = Mapping[str, Callable[[], Iterable[Graph]]]
"""The batches of each set, each time they are asked for."""


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How linear mixing ended for every structure of one set."""

    set_name: str
    mixing: float
    status: Int[np.ndarray, "structures"]
    """A `SolverStatus` each."""
    steps: Int[np.ndarray, "structures"]

    def row(self) -> tuple[str, ...]:
        """Cells of the table: set, number, mixing, shares in percent, quantiles of the steps."""
        converged = np.mean(self.status == SolverStatus.CONVERGED)
        diverged = np.mean(self.status == SolverStatus.DIVERGED)
        shares = (converged, max(1.0 - converged - diverged, 0.0), diverged)
        quantiles = np.percentile(self.steps, (50, 95))
        return (
            self.set_name,
            str(len(self.status)),
            f"{self.mixing:g}",
            *(f"{100.0 * share:.1f}" for share in shares),
            *(f"{quantile:.0f}" for quantile in quantiles),
        )


def mixing_values(training: FixedPointTraining) -> tuple[float, ...]:
    """Mixing parameters to try: the usual one, or the smaller one of the stage and twice that.

    Args:
        training: of the stage.
    """
    own = MIXING if training.scf is None else training.scf.mixing_parameter
    return (MIXING,) if own >= MIXING else (own, 2.0 * own)


def measure_convergence(
    module: FixedPoint,
    parameters: Parameters,
    sets: Sets,
    *,
    mixings: Sequence[float],
    constant_charge: bool,
) -> tuple[Convergence, ...]:
    """Let linear mixing run on all sets, from the local multipoles.

    Args:
        sets: the batches of each set by its name.
        mixings: mixing parameters to try.
        constant_charge: whether the Fermi levels are solved for.

    Returns:
        One entry per mixing parameter and set, sets in alphabetical order.
    """
    results = []
    for mixing in mixings:
        ends = _compiled_ends(module, mixing, constant_charge)
        for name in sorted(sets):
            status, steps = [], []
            for graph in sets[name]():
                found = jax.device_get(ends(parameters, graph))
                status.append(found[0][graph.graph_mask])
                steps.append(found[1][graph.graph_mask])
            results.append(Convergence(name, mixing, np.concatenate(status), np.concatenate(steps)))
    return tuple(results)


@functools.cache
def _compiled_ends(
    module: FixedPoint, mixing: float, constant_charge: bool
) -> Callable[[Parameters, Graph], tuple[Array, Array]]:
    """Status and steps of linear mixing on a batch; one function for all stages."""
    how = SelfConsistency(constant_charge=constant_charge)

    @jax.jit
    def ends(parameters: Parameters, graph: Graph) -> tuple[Array, Array]:
        graph = seen_by_multipoles(module.settings, graph)
        local = module.apply({"params": parameters}, graph, method="local")
        problem = fixed_point_problem(module, parameters, local, constant_charge=constant_charge)
        start = initial_state(module, local, how)
        solver = LinearMixing(NUM_SCF_STEPS - 1, SCF_TOLERANCE, mixing=mixing)
        solution = solver.find(problem, graph.to_slots(start.multipoles), start.fermi_level)
        return solution.status, solution.steps

    return ends


def convergence_table(results: Sequence[Convergence]) -> str:
    """The results as a plain-text table, one block for each mixing parameter.

    Args:
        results: of `measure_convergence`.
    """
    grid = Table(box=ASCII)
    grid.add_column("config_type", no_wrap=True)
    for heading in (
        "n",
        "mixing",
        "converged %",
        "other %",
        "diverged %",
        "median steps",
        "p95 steps",
    ):
        grid.add_column(heading, justify="right", no_wrap=True)
    for index, result in enumerate(results):
        is_last = index + 1 < len(results) and results[index + 1].mixing != result.mixing
        grid.add_row(*result.row(), end_section=is_last)
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None, markup=False).print(grid)
    return text.getvalue().rstrip("\n")


def scf_convergence_summary(
    module: FixedPoint,
    parameters: Parameters,
    sets: Sets,
    *,
    stage: str,
    training: FixedPointTraining,
    batch_size: int,
) -> str:
    """Settings and tables for given Fermi levels and for given charges, in this order.

    Args:
        parameters: of the stage.
        sets: the batches of each set by its name.
        stage: name of the stage.
        training: of the stage.
        batch_size: structures per batch.
    """
    mixings = mixing_values(training)
    lines = [
        "SCF convergence summary",
        f"stage: {stage}",
        "diagnostic mode: linear mixing, each structure by itself",
        "meaning: how hard the cycle is for plain mixing; predictions use the solver auto, which "
        "needs far fewer steps (other: neither converged nor diverged within num_scf_steps)",
        f"num_scf_steps: {NUM_SCF_STEPS}",
        f"scf_tolerance: {SCF_TOLERANCE:g}",
        "initial_density: local_guess",
        "initial_fermi_level: from_data",
        f"mixing values: {', '.join(f'{mixing:g}' for mixing in mixings)}",
        f"rows: {', '.join(sorted(sets))}",
        f"diagnostic batch size: {batch_size}",
    ]
    for heading, constant_charge in CHARGE_MODES.items():
        results = measure_convergence(
            module, parameters, sets, mixings=mixings, constant_charge=constant_charge
        )
        lines += [f"{heading} convergence", convergence_table(results)]
    return "\n".join(lines)
