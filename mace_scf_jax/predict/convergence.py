"""What is done about structures whose multipoles did not become self-consistent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mace_scf_jax.data.errors import Location
from mace_scf_jax.scf.status import SolverStatus

NotConverged = Literal["raise", "warn", "ignore"]
"""What to do about structures without a self-consistent solution."""

LONGEST_LIST = 5
"""Structures that a message describes one by one."""

_ADVICE = {
    SolverStatus.MAX_STEPS: "allow more steps",
    SolverStatus.DIVERGED: "choose the solver 'auto', which does not follow diverging cycles",
    SolverStatus.SINGULAR: "look at the charge response: the charge may not answer to the "
    "Fermi level",
}


class NotConvergedError(ValueError):
    """The multipoles of a structure did not become self-consistent."""


class NotConvergedWarning(UserWarning):
    """The multipoles of a structure did not become self-consistent; results were returned."""


def check_policy(policy: str) -> None:
    """Refuse the name of a policy that does not exist.

    Raises:
        ValueError: it does not.
    """
    if policy not in get_args(NotConverged):
        known = ", ".join(get_args(NotConverged))
        raise ValueError(f"not_converged: expected one of {known}, found {policy!r}")


def has_converged(prediction: Mapping[str, Any]) -> bool:
    """Whether the multipoles are self-consistent; always for models without such a cycle."""
    return prediction.get("scf_status", SolverStatus.CONVERGED) == SolverStatus.CONVERGED


def report_convergence(
    predictions: Sequence[Mapping[str, Any]],
    locations: Sequence[Location],
    *,
    not_converged: NotConverged,
) -> None:
    """Raise or warn if there are predictions whose multipoles are not self-consistent.

    Args:
        predictions: of structures; those of models without a self-consistent cycle always pass.
        locations: where each structure came from.
        not_converged: what to do.

    Raises:
        NotConvergedError: a structure has not converged, and the policy is to raise.
        ValueError: there is no such policy.
    """
    check_policy(not_converged)
    failed = [
        (location, prediction)
        for location, prediction in zip(locations, predictions, strict=True)
        if not has_converged(prediction)
    ]
    if not failed or not_converged == "ignore":
        return
    message = _message(failed)
    if not_converged == "raise":
        raise NotConvergedError(message)
    warnings.warn(message, NotConvergedWarning, stacklevel=3)


def _message(failed: list[tuple[Location, Mapping[str, Any]]]) -> str:
    """What did not converge, how far it came, and what to do."""
    lines = [f"{location}: {_describe(prediction)}" for location, prediction in failed]
    if len(lines) > LONGEST_LIST:
        lines = [*lines[:LONGEST_LIST], f"and {len(lines) - LONGEST_LIST} further structures"]
    statuses = dict.fromkeys(SolverStatus(int(entry["scf_status"])) for _, entry in failed)
    advice = "; ".join(_ADVICE[status] for status in statuses)
    return f"{'; '.join(lines)}. To do: {advice}; `mace-scf-jax scf` shows how each solver fares"


def _describe(prediction: Mapping[str, Any]) -> str:
    status = SolverStatus(int(prediction["scf_status"])).name.lower().replace("_", " ")
    return (
        f"multipoles not self-consistent ({status}) after {int(prediction['scf_steps'])} steps, "
        f"residual {float(prediction['scf_residual']):.1e} e, "
        f"charge {float(prediction['total_charge']):.6g} e"
    )
