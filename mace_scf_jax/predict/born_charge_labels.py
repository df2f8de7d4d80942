"""Reference Born effective charges of structures, and the order of their indices.

Files hold nine numbers for each atom, and do not say whether a row belongs to a component of the
dipole or of the displacement. Structures that are open in all directions tell. When atoms turn
together by a small angle ω, so does the dipole,

    Σ_i Z_i (ω × r_i) = ω × D,    so that    M_ac = Σ_i Z_i,ab ε_bcd r_i,d

is antisymmetric: of the two orders, that is the right one for which M + Mᵀ vanishes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import ase
import numpy as np
from jaxtyping import Float

from mace_scf_jax.data.checks import stored_keys
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.registry import nearest

NUM_COMPONENTS = 9
CLEARLY_SMALLER = 0.5
"""Ratio of the deviations from the rotation rule below which one order is taken."""
SAME_ORDER = 1e-6
"""Relative size of antisymmetric parts below which the order does not matter."""

_LEVI_CIVITA = np.cross(np.eye(3)[:, None], np.eye(3)[None, :])
"""ε_bcd, as [b, c, d]."""


class BornChargeOrder(enum.StrEnum):
    """What the rows of reference Born charges belong to."""

    AUTO = "auto"
    """Whichever fulfils the rotation rule."""
    DIPOLE_ROWS = "dipole_rows"
    """Z_ab = ∂D_a/∂r_b stands in row a, as everywhere in this package."""
    DISPLACEMENT_ROWS = "displacement_rows"
    """∂D_a/∂r_b stands in row b, as in the public files of les_fit."""


class BornChargeLabels(NamedTuple):
    """Reference Born charges of structures, in the order of this package."""

    charges: list[Float[np.ndarray, "atoms 3 3"] | None]
    """∂D_a/∂r_b in e: rows of the dipole; None for structures without any."""
    order: BornChargeOrder
    """Order of the file."""
    reason: str
    """How that is known, in words."""


def read_born_charges(
    structures: Sequence[ase.Atoms],
    key: str,
    *,
    order: BornChargeOrder | str = BornChargeOrder.AUTO,
    locations: Sequence[Location] | None = None,
) -> BornChargeLabels:
    """Read reference Born charges, and find the order of their indices.

    Args:
        structures: with nine numbers, or 3×3, for each atom in ``arrays[key]``, in e; structures
            without that array have no reference.
        key: name of the array.
        order: of the indices, a `BornChargeOrder` or its name.
        locations: of the structures, for messages.

    Raises:
        DataError: no structure has the array, it has another shape or no finite numbers, or the
            rotation rule does not tell the order.
        ValueError: there is no such order.
    """
    try:
        order = BornChargeOrder(order)
    except ValueError:
        known = ", ".join(BornChargeOrder)
        raise ValueError(f"born_charges_order: expected one of {known}, found {order!r}") from None
    if locations is None:
        locations = [Location(None, index) for index in range(len(structures))]
    charges = [
        _tensors(atoms, key, location)
        for atoms, location in zip(structures, locations, strict=True)
    ]
    if all(entry is None for entry in charges):
        known = sorted(stored_keys(structures)["arrays"])
        guess = nearest(key, known)
        hint = f"did you mean {guess!r}? " if guess else ""
        raise DataError(
            f"born_charges: no structure has the array {key!r}; {hint}arrays that occur: "
            f"{', '.join(known) or 'none'}"
        )
    reason = "as given"
    if order is BornChargeOrder.AUTO:
        order, reason = _find_order(structures, charges, key)
    if order is BornChargeOrder.DISPLACEMENT_ROWS:
        charges = [None if entry is None else np.swapaxes(entry, 1, 2) for entry in charges]
    return BornChargeLabels(charges, order, reason)


def _tensors(
    atoms: ase.Atoms, key: str, location: Location
) -> Float[np.ndarray, "atoms 3 3"] | None:
    if key not in atoms.arrays:
        return None
    values = np.asarray(atoms.arrays[key])
    if values.dtype.kind not in "iuf" or values.size != NUM_COMPONENTS * len(atoms):
        raise DataError(
            f"{location}, key {key!r} (Born charges): found an array of shape {values.shape}, "
            f"expected {NUM_COMPONENTS} numbers for each of {len(atoms)} atoms"
        )
    if not np.all(np.isfinite(values)):
        raise DataError(
            f"{location}, key {key!r} (Born charges): found NaN or infinity, expected finite "
            "numbers"
        )
    return values.astype(np.float64).reshape(-1, 3, 3)


def _find_order(
    structures: Sequence[ase.Atoms],
    charges: Sequence[Float[np.ndarray, "atoms 3 3"] | None],
    key: str,
) -> tuple[BornChargeOrder, str]:
    """Order of the indices, and how it was found."""
    labelled = [entry for entry in charges if entry is not None]
    turned = max(np.max(np.abs(entry - np.swapaxes(entry, 1, 2))) for entry in labelled)
    if turned <= SAME_ORDER * max(np.max(np.abs(entry)) for entry in labelled):
        return BornChargeOrder.DIPOLE_ROWS, "all tensors are symmetric"
    turning = [
        (atoms, entry)
        for atoms, entry in zip(structures, charges, strict=True)
        if entry is not None and not atoms.pbc.any()
    ]
    advice = (
        f"say what the rows of {key!r} belong to: born_charges_order dipole_rows or "
        "displacement_rows"
    )
    if not turning:
        raise DataError(
            "born_charges: the order of the indices can be found only with structures that are "
            f"open in all directions, found none; {advice}"
        )
    deviations = {
        BornChargeOrder.DIPOLE_ROWS: rotation_deviation(turning),
        BornChargeOrder.DISPLACEMENT_ROWS: rotation_deviation(
            [(atoms, np.swapaxes(entry, 1, 2)) for atoms, entry in turning]
        ),
    }
    (order, least), (other, larger) = sorted(deviations.items(), key=lambda item: item[1])
    if not least < CLEARLY_SMALLER * larger:
        raise DataError(
            f"born_charges: neither order of the indices fulfils the rotation rule clearly better "
            f"(relative deviations {order} {least:.2g}, {other} {larger:.2g}); {advice}"
        )
    return order, f"by the rotation rule: relative deviation {least:.2g}, {other} {larger:.2g}"


def rotation_deviation(
    structures: Sequence[tuple[ase.Atoms, Float[np.ndarray, "atoms 3 3"]]],
) -> float:
    """How far Born charges are from turning a dipole with the atoms, relative to what they do.

    Args:
        structures: open in all directions, without external field, with Z_ab = ∂D_a/∂r_b in e.
    """
    wrong = total = 0.0
    for atoms, charges in structures:
        arms = atoms.positions - np.mean(atoms.positions, axis=0)
        by_angle = np.einsum("iab,bcd,id->ac", charges, _LEVI_CIVITA, arms)
        wrong += float(np.sum((by_angle + by_angle.T) ** 2)) / 4.0
        total += float(np.sum(by_angle**2))
    return float(np.sqrt(wrong / total)) if total > 0.0 else 0.0
