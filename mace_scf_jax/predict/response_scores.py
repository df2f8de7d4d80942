"""How predicted dipoles and Born effective charges agree with reference values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Unpack

import ase
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import ReadStructures
from mace_scf_jax.models.response import DipoleResponse
from mace_scf_jax.models.screening import dipole_scale
from mace_scf_jax.predict.born_charge_labels import (
    BornChargeLabels,
    BornChargeOrder,
    read_born_charges,
)
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.response import respond
from mace_scf_jax.predict.use import Options

ALL = "all"
ISOTROPIC = "isotropic"
"""A third of the trace of each tensor."""
OFF_DIAGONAL = "off-diagonal"
"""The six components outside the diagonal."""
_OFF_DIAGONAL = ~np.eye(3, dtype=bool)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Reference numbers r and predictions p side by side."""

    count: int
    rmse: float
    """√⟨(p - r)²⟩, in the unit of the numbers."""
    slope: float
    """Σ p r / Σ r², of the line through the origin: by which factor predictions are too large."""
    r_squared: float
    """1 - Σ(p - r)² / Σ(r - ⟨r⟩)²; below 1 also where only scale or sign are wrong."""
    pearson_squared: float
    """Squared correlation coefficient, which sees neither scale nor sign."""

    @classmethod
    def of(cls, reference: np.ndarray, predicted: np.ndarray) -> Agreement:
        """Compare arrays of one shape, with NaN where numbers do not vary."""
        r, p = np.ravel(reference), np.ravel(predicted)
        dr, dp = r - np.mean(r), p - np.mean(p)
        error = p - r
        return cls(
            count=len(r),
            rmse=float(np.sqrt(np.mean(error**2))),
            slope=_ratio(p @ r, r @ r),
            r_squared=1.0 - _ratio(error @ error, dr @ dr),
            pearson_squared=_ratio((dp @ dr) ** 2, (dp @ dp) * (dr @ dr)),
        )


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0.0 else float("nan")


@dataclasses.dataclass(frozen=True)
class SumRule:
    """How far Born charges are from Σ_i Z_i = Q·1, over the components of all structures."""

    rms: float
    """e."""
    largest: float
    """e."""

    @classmethod
    def of(
        cls, charges: Sequence[Float[np.ndarray, "atoms 3 3"]], total_charges: Sequence[float]
    ) -> SumRule:
        """Add up the charges of every structure."""
        left = np.array(
            [
                np.sum(entry, axis=0) - total * np.eye(3)
                for entry, total in zip(charges, total_charges, strict=True)
            ]
        )
        return cls(float(np.sqrt(np.mean(left**2))), float(np.max(np.abs(left))))


@dataclasses.dataclass(frozen=True)
class ResponseScores:
    """Scores of dipoles and Born effective charges.

    Charge is positive where electrons are missing, D = Σ q r, and Z_ab = ∂D_a/∂r_b.
    """

    born_charges: dict[str, Agreement]
    """In e: ``all`` components, ``isotropic`` and ``off-diagonal`` ones; the components of each
    element by its symbol, and its isotropic ones, ``O isotropic``."""
    dipole: Agreement | None
    """In e Å, of components along open directions; None without reference dipoles."""
    sum_rule_of_labels: SumRule
    sum_rule: SumRule
    """Of the predictions."""
    order: BornChargeOrder
    """Order of the indices of the labels."""
    reason: str
    """How that is known, in words."""
    scale: float
    """√ε∞, the dipole of the model over that of its multipoles; given, not fitted."""
    num_structures: int
    """Structures with reference Born charges."""
    num_charged: int
    """Charged ones among those with reference dipoles, which are about the origin of the
    coordinates."""


def score_born_charges(
    model: Model,
    structures: Sequence[ase.Atoms],
    key: str,
    *,
    order: BornChargeOrder | str = BornChargeOrder.AUTO,
    batch_size: int = 64,
    **options: Unpack[Options],
) -> ResponseScores:
    """Compare dipoles and Born effective charges of a model with those that structures come with.

    Nothing is fitted: the scale of dipoles is that of the model, and the slopes tell what it is
    relative to the reference.

    Args:
        model: a model with charges.
        structures: molecules or periodic ones, with reference Born charges in ``arrays[key]``, nine
            numbers for each atom in e, and dipoles in e Å under the key of the training, or else
            ``dipole``. Dipoles of charged structures are about the origin of the coordinates;
            components along periodic directions do not count.
        key: name of the array.
        order: what its rows belong to, a `BornChargeOrder` or its name.
        batch_size: most structures evaluated together.
        options: how the model is used, see `Options`.

    Raises:
        NoDipoleError: the model has no charges.
        DataError: reference values are missing or cannot be used, or the order of their indices
            has to be given.
        BoundaryError: a structure's periodicity does not fit the model's electrostatics.
    """
    used = reading_dipoles(model.using(**options))
    labels = read_born_charges(structures, key, order=order)
    locations = [Location(None, index) for index in range(len(structures))]
    configurations = used.read_labelled(ReadStructures(list(structures), locations))
    responses = respond(used, [used.prepare(it) for it in configurations], batch_size=batch_size)
    scale = dipole_scale(used.settings)
    return score(labels, configurations, responses, scale=scale)


def reading_dipoles(model: Model) -> Model:
    """Return the model, which looks for dipoles under their own name if nothing is said of them."""
    if "dipole" in model.keys.names():
        return model
    given = model.given_keys or KeySpecification({}, {})
    info = {**given.info_keys, "dipole": "dipole"}
    return dataclasses.replace(model, given_keys=dataclasses.replace(given, info_keys=info))


def score(
    labels: BornChargeLabels,
    configurations: Sequence[Configuration],
    responses: Sequence[DipoleResponse],
    *,
    scale: float,
) -> ResponseScores:
    """Compare responses of structures with their reference values.

    Args:
        labels: Born charges.
        configurations: with reference dipoles.
        responses: of the same structures.
        scale: of the dipoles of the model.
    """
    pairs = [
        (entry, reference, response.born_charges)
        for entry, reference, response in zip(
            configurations, labels.charges, responses, strict=True
        )
        if reference is not None
    ]
    totals = [float(entry.values["total_charge"]) for entry, _, _ in pairs]
    reference, predicted = (np.concatenate([pair[place] for pair in pairs]) for place in (1, 2))
    elements = np.concatenate([entry.atomic_numbers for entry, _, _ in pairs])
    traces = [np.trace(it, axis1=1, axis2=2) / 3.0 for it in (reference, predicted)]
    found = {
        ALL: Agreement.of(reference, predicted),
        ISOTROPIC: Agreement.of(*traces),
        OFF_DIAGONAL: Agreement.of(reference[:, _OFF_DIAGONAL], predicted[:, _OFF_DIAGONAL]),
    }
    for element in np.unique(elements):
        own, symbol = elements == element, chemical_symbols[element]
        found[symbol] = Agreement.of(reference[own], predicted[own])
        found[f"{symbol} {ISOTROPIC}"] = Agreement.of(*(it[own] for it in traces))
    dipole, num_charged = _dipoles(configurations, responses)
    return ResponseScores(
        born_charges=found,
        dipole=dipole,
        sum_rule_of_labels=SumRule.of([pair[1] for pair in pairs], totals),
        sum_rule=SumRule.of([pair[2] for pair in pairs], totals),
        order=labels.order,
        reason=labels.reason,
        scale=scale,
        num_structures=len(pairs),
        num_charged=num_charged,
    )


def _dipoles(
    configurations: Sequence[Configuration], responses: Sequence[DipoleResponse]
) -> tuple[Agreement | None, int]:
    """Agreement of the dipole components that mean something, and how many structures are charged.

    Those along periodic directions have the weight 0 unless the data say otherwise.
    """
    reference, predicted, num_charged = [], [], 0
    for entry, response in zip(configurations, responses, strict=True):
        counts = (entry.weights["dipole"] > 0.0) & np.isfinite(response.dipole)
        reference.append(entry.values["dipole"][counts])
        predicted.append(np.asarray(response.dipole)[counts])
        num_charged += bool(counts.any() and entry.values["total_charge"] != 0.0)
    if sum(map(len, reference)) == 0:
        return None, 0
    return Agreement.of(np.concatenate(reference), np.concatenate(predicted)), num_charged
