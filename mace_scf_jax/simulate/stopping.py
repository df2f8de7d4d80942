"""Where a simulation cannot go on: why, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_scf_jax.simulate import dynamics
from mace_scf_jax.simulate.committee_energy import CommitteeEnergyFunction
from mace_scf_jax.simulate.dynamics import EvaluationStatus
from mace_scf_jax.simulate.settings import SimulationError

if TYPE_CHECKING:
    from mace_scf_jax.simulate.simulation import Simulation

FAILURES = {
    EvaluationStatus.OUTGROWN: "the neighbours outgrow all that is prepared for them",
    EvaluationStatus.NOT_CONVERGED: "the multipoles do not converge",
    EvaluationStatus.NOT_FINITE: "positions or energy are not finite",
    EvaluationStatus.TOO_FAST: (
        f"an atom would move by more than {dynamics.LARGEST_MOVE:g} Å in one step"
    ),
    EvaluationStatus.UNCERTAIN: (
        "the members of the committee disagree about a force by more than the largest uncertainty"
    ),
}

LONG_TIMESTEP = 0.25
"""fs; shorter ones are seldom to blame."""


class SimulationStopped(SimulationError):  # noqa: N818 (not always an error)
    """A simulation cannot go on; its state is that of the last good step.

    Args:
        step: that was not made.
        status: why.
    """

    def __init__(self, step: int, status: EvaluationStatus) -> None:
        super().__init__(f"step {step}: {FAILURES[status]}")
        self.status = status


def advice(simulation: Simulation, status: EvaluationStatus) -> str:
    """What a user can do, one sentence each.

    Args:
        simulation: where it stopped.
        status: of the step that was not made.
    """
    if status is EvaluationStatus.UNCERTAIN:
        return (
            "Label the last frame and add it to the training set; or accept a larger uncertainty "
            "and go on"
        )
    helps = []
    timestep = simulation.settings.timestep
    if timestep > LONG_TIMESTEP:
        helps.append(f"a shorter time step than {timestep:g} fs")
    helps.append("a start that was relaxed")
    helps.append("structures like the last frames in the training set")
    if getattr(simulation.energy_fn.model.settings.backbone, "pair_repulsion", None) is False:
        helps.append("training with pair_repulsion: true, which keeps atoms apart")
    if not isinstance(simulation.energy_fn, CommitteeEnergyFunction):
        helps.append("a committee with a largest uncertainty, which stops before it is too late")
    return f"What helps: {'; '.join(helps)}"
