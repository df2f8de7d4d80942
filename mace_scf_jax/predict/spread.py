"""Mean and spread of the predictions of several models, and structures ranked by the spread."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mace_scf_jax.models.outputs import Use, outputs_for
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.registry import unknown_name


class UncertaintyError(ValueError):
    """There is no such measure of uncertainty, or predictions lack what it needs."""


def mean_and_std(
    values: Sequence[Any],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Mean and sample standard deviation over members; exactly zero where all are equal."""
    stacked = np.asarray(values, dtype=np.float64)
    relative = stacked - stacked[0]  # digits that members share do not round the deviations
    mean = relative.mean(axis=0)
    variance = np.sum((relative - mean) ** 2, axis=0) / (len(stacked) - 1)
    return np.asarray(stacked[0] + mean), np.asarray(np.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class CommitteePrediction:
    """What a committee predicts for one structure."""

    mean: Prediction
    """Means over the members of the outputs for `Use.COMMITTEES`."""
    std: Prediction
    """Sample standard deviations over the members (divisor: members - 1), likewise."""
    members: tuple[Prediction, ...]
    """Everything that each member predicts."""
    reference: int | None = None
    """Position of the member whose outputs are taken in place of the means; None for the means."""

    @classmethod
    def of(
        cls, members: Sequence[Prediction], *, reference: int | None = None
    ) -> CommitteePrediction:
        """Mean and spread of what the members predict, for a structure or for a batch.

        Args:
            reference: see `CommitteePrediction.reference`.
        """
        mean, std = {}, {}
        for name in [entry.name for entry in outputs_for(Use.COMMITTEES)]:
            if name in members[0]:
                mean[name], std[name] = mean_and_std([entry[name] for entry in members])
        return cls(mean, std, tuple(members), reference)

    @property
    def combined(self) -> Prediction:
        """What the committee predicts: the means, or the same outputs of the reference member."""
        if self.reference is None:
            return self.mean
        return {name: self.members[self.reference][name] for name in self.mean}

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Values of every member, [members, …], by name of the output."""
        return {name: np.stack([entry[name] for entry in self.members]) for name in self.mean}


@dataclasses.dataclass(frozen=True)
class Measure:
    """The uncertainty of a structure as one number."""

    unit: str
    needs: tuple[str, ...]
    """Outputs that it is made from."""
    value: Callable[[Mapping[str, Any]], float]
    """From the standard deviations of the outputs."""


UNCERTAINTIES: Mapping[str, Measure] = {
    "forces": Measure(
        "eV/Å", ("forces",), lambda std: np.max(np.linalg.norm(std["forces"], axis=-1))
    ),
    "energy": Measure(
        "eV/atom", ("energy", "node_energy"), lambda std: std["energy"] / len(std["node_energy"])
    ),
    "stress": Measure("eV/Å³", ("stress",), lambda std: np.max(std["stress"])),
    "charges": Measure("e", ("charges",), lambda std: np.max(std["charges"])),
    "dipole": Measure("e Å", ("dipole",), lambda std: np.linalg.norm(std["dipole"])),
}
"""Measures by name, each from standard deviations: the largest over the atoms of the norm of the
force; the energy per atom; the largest component of the stress; the largest charge of an atom; the
norm of the dipole."""


def uncertainty(prediction: CommitteePrediction, *, by: str = "forces") -> float:
    """How far the members disagree about a structure, as one number.

    Args:
        by: name of the measure in `UNCERTAINTIES`.

    Raises:
        UncertaintyError: there is no such measure, or the prediction lacks what it needs.
    """
    if by not in UNCERTAINTIES:
        raise UncertaintyError(unknown_name("measure of uncertainty", by, UNCERTAINTIES))
    measure = UNCERTAINTIES[by]
    missing = [name for name in measure.needs if name not in prediction.std]
    if missing:
        raise UncertaintyError(
            f"uncertainty of {by}: expected predictions of {', '.join(missing)}, found only "
            f"{', '.join(prediction.std)}"
        )
    return float(measure.value(prediction.std))


def rank(predictions: Sequence[CommitteePrediction], *, by: str = "forces") -> list[int]:
    """Positions of structures, the one that the members disagree about most first.

    Predictions that are not finite come before all others.

    Args:
        by: name of the measure in `UNCERTAINTIES`.

    Raises:
        UncertaintyError: there is no such measure, or a prediction lacks what it needs.
    """
    values = [uncertainty(prediction, by=by) for prediction in predictions]
    keys = [value if math.isfinite(value) else math.inf for value in values]
    return sorted(range(len(keys)), key=lambda index: -keys[index])
