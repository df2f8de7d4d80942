"""What is done about structures whose multipoles did not become self-consistent."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mace_scf_jax.data.errors import Location
from mace_scf_jax.models.outputs import OUTPUTS, Search, ends_of_searches
from mace_scf_jax.scf.status import SolverStatus

NotConverged = Literal["raise", "warn", "ignore"]
"""What to do about structures without a self-consistent solution."""

LONGEST_LIST = 5
"""Structures that a message describes one by one."""


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
    """Whether every search for the multipoles found them; always for models without a search."""
    return _failure(prediction) is None


def report_convergence(
    predictions: Sequence[Mapping[str, Any]],
    locations: Sequence[Location],
    *,
    not_converged: NotConverged,
    of: str = "",
) -> None:
    """Raise or warn if there are predictions whose multipoles are not self-consistent.

    Args:
        predictions: of structures; those of models without a self-consistent cycle always pass.
        locations: where each structure came from.
        not_converged: what to do.
        of: the model that predicts, if there are several.

    Raises:
        NotConvergedError: a structure has not converged, and the policy is to raise.
        ValueError: there is no such policy.
    """
    check_policy(not_converged)
    failures = [
        (location, prediction, failure)
        for location, prediction in zip(locations, predictions, strict=True)
        if (failure := _failure(prediction)) is not None
    ]
    if not failures or not_converged == "ignore":
        return
    message = f"{of}: {_message(failures)}" if of else _message(failures)
    if not_converged == "raise":
        raise NotConvergedError(message)
    warnings.warn(message, NotConvergedWarning, stacklevel=3)


@dataclasses.dataclass(frozen=True)
class _Failure:
    """A search that did not find the multipoles."""

    search: Search
    status: SolverStatus


def _failure(prediction: Mapping[str, Any]) -> _Failure | None:
    """The search for the multipoles of a structure that failed, if one did."""
    for end in ends_of_searches(prediction):
        status = SolverStatus(int(prediction[end.name]))
        if status is not SolverStatus.CONVERGED:
            return _Failure(end.search, status)
    return None


def _message(failures: list[tuple[Location, Mapping[str, Any], _Failure]]) -> str:
    """What did not converge, how far it came, and what to do."""
    lines = [
        f"{location}: {_describe(prediction, failure)}"
        for location, prediction, failure in failures
    ]
    if len(lines) > LONGEST_LIST:
        lines = [*lines[:LONGEST_LIST], f"and {len(lines) - LONGEST_LIST} further structures"]
    advice = [failure.search.advice[failure.status] for _, _, failure in failures]
    commands = [failure.search.command for _, _, failure in failures if failure.search.command]
    to_do = dict.fromkeys((*advice, *commands))
    return f"{'; '.join(lines)}. To do: {'; '.join(to_do)}"


def _describe(prediction: Mapping[str, Any], failure: _Failure) -> str:
    search = failure.search
    return (
        f"{search.failure} ({failure.status.name.lower().replace('_', ' ')}) "
        f"after {int(prediction[search.steps])} steps, residual "
        f"{float(prediction[search.residual]):.1e} {OUTPUTS[search.residual].unit}, "
        f"charge {float(prediction['total_charge']):.6g} e"
    )
