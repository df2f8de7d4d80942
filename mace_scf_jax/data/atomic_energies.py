"""Energies of free atoms, to which a model adds the interaction."""

from __future__ import annotations

import ast
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError

logger = logging.getLogger("mace_scf_jax")

AtomicEnergySetting = str | Path | Mapping[Any, Any] | None
"""`average`, the path of a .json file, a mapping from element to energy, such a mapping as text."""


def atomic_energies(
    setting: AtomicEnergySetting,
    *,
    elements: Sequence[int],
    train: Catalogue,
    isolated_atoms: Catalogue | None = None,
) -> Float[np.ndarray, "elements"]:
    """Atomic energies of the given elements.

    If the training file holds isolated atoms, their energies are used and the setting is ignored.

    Args:
        setting: where else to take them from.
        elements: atomic numbers.
        train: catalogue of the training set, for `average`.
        isolated_atoms: catalogue of the isolated atoms of the training file.

    Returns:
        Energies in eV, in the order of `elements`.

    Raises:
        DataError: if the setting cannot be used, or an element has no energy.
    """
    if isolated_atoms is not None and len(isolated_atoms):
        if setting is not None:
            logger.info("E0s: not used, because the training file holds isolated atoms")
        known = _from_isolated_atoms(isolated_atoms)
        source = "isolated atoms of the training file, which win over E0s"
    elif setting is None:
        raise DataError(
            "E0s: found neither this option nor isolated atoms in the training file; expected "
            "'average', a .json file or {element: energy}"
        )
    elif isinstance(setting, str) and setting.strip().lower() == "average":
        known, source = average_atomic_energies(train, elements), "average"
    else:
        known, source = _parse(setting), "E0s"
    missing = [chemical_symbols[number] for number in elements if number not in known]
    if missing:
        raise DataError(
            f"atomic energies ({source}): found none for {', '.join(missing)}, expected one for "
            "each element of the training and validation sets"
        )
    return np.array([known[number] for number in elements], dtype=np.float64)


def average_atomic_energies(train: Catalogue, elements: Sequence[int]) -> dict[int, float]:
    """Atomic energies whose sums come closest to the total energies, in the least-squares sense.

    Only configurations with an energy of non-zero weight count. Where the compositions do not
    determine each energy (pure water: only 2 H + O), the solution of smallest norm is taken, with
    a warning.

    Raises:
        DataError: if no configuration has an energy.
    """
    labelled = train.weights["energy"] > 0.0
    if not labelled.any():
        raise DataError(
            "E0s 'average': found no training configuration with an energy; give the energies as "
            "{element: energy}"
        )
    counts = train.counts_of(elements)[labelled].astype(np.float64)
    energies = train.energy[labelled]
    solution, _, rank, _ = np.linalg.lstsq(counts, energies, rcond=None)
    if rank < len(elements):
        logger.warning(
            "E0s 'average': the compositions of the training set do not determine the energies of "
            "its %d elements one by one (rank %d); only their sums are meaningful",
            len(elements),
            rank,
        )
    return {number: float(energy) for number, energy in zip(elements, solution, strict=True)}


def _from_isolated_atoms(atoms: Catalogue) -> dict[int, float]:
    """Energy of each element among the isolated atoms, the mean where there are several."""
    energies: dict[int, list[float]] = defaultdict(list)
    elements = atoms.occurring_elements()
    for row, column in enumerate(np.argmax(atoms.counts_of(elements), axis=1)):
        number = elements[column]
        if not atoms.present["energy"][row]:
            logger.warning(
                "%s: isolated atom %s has no energy, its atomic energy is taken as 0 eV",
                atoms.location(row),
                chemical_symbols[number],
            )
        energies[number].append(float(atoms.energy[row]))
    return {number: float(np.mean(values)) for number, values in energies.items()}


def _parse(setting: str | Path | Mapping[Any, Any]) -> dict[int, float]:
    """Energies by atomic number from a mapping, a JSON file or the text of a mapping."""
    mapping: Any = setting
    if isinstance(setting, str | Path):
        text, where = str(setting).strip(), f"E0s: {setting}"
        try:
            if text.endswith(".json"):
                mapping = json.loads(Path(text).read_text())
            else:
                mapping = ast.literal_eval(text)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror})") from None
        except (ValueError, SyntaxError) as error:
            raise DataError(
                f"{where}: found no mapping ({error}); expected 'average', a .json file or "
                "{element: energy}"
            ) from None
    if not isinstance(mapping, Mapping):
        raise DataError(f"E0s: found {mapping!r}, expected {{element: energy}}")
    return {_atomic_number(key): _energy(key, value) for key, value in mapping.items()}


def _atomic_number(key: Any) -> int:
    """Atomic number of an element given by number or symbol."""
    text = str(key).strip()
    number = int(text) if text.isdigit() else atomic_numbers.get(text, 0)
    if not 0 < number < len(chemical_symbols):
        raise DataError(
            f"E0s: found {key!r}, expected an atomic number or the symbol of an element"
        )
    return number


def _energy(key: Any, value: Any) -> float:
    """A finite energy."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(f"E0s, {key}: found {value!r}, expected an energy in eV")
    return float(value)
