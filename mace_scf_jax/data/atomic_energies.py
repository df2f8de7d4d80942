"""Energies of free atoms, to which a model adds the interaction."""

from __future__ import annotations

import ast
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float
from pydantic import BeforeValidator

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reference_energies import (
    Compounds,
    ReferenceEnergies,
    Regression,
    reference_energies,
    reference_method,
)
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.options.values import Literally, NoneInText, energies_of_isolated_atoms

logger = logging.getLogger("mace_scf_jax")

AtomicEnergySetting = Regression | Compounds | str | Path | Mapping[Any, Any] | None
"""`average`, the path of a .json file, a mapping from element to energy, a mapping with a
``method`` (`mace_scf_jax.data.reference_energies`), or a mapping as text."""


def _with_method(value: Any) -> Any:
    """Energies, or how to find them."""
    if isinstance(value, Regression | Compounds):
        return value
    if not (isinstance(value, Mapping) and "method" in value):
        return energies_of_isolated_atoms(value)
    return _method(value)


def _method(values: Mapping[str, Any]) -> Regression | Compounds:
    try:
        return reference_method(values)
    except ConfigurationError as error:
        raise error.within("E0s") from None


AtomicEnergiesOption = Annotated[
    dict[int, float] | str | Regression | Compounds | None,
    BeforeValidator(_with_method),
    Literally,
    NoneInText,
]
"""The option ``E0s`` of a training."""


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
            "'average', a .json file or {element: energy}, or structures of one atom with "
            "config_type=IsolatedAtom"
        )
    elif isinstance(setting, str) and setting.strip().lower() == "average":
        known, source = average_atomic_energies(train, elements), "average"
    else:
        given = _parse(setting)
        if isinstance(given, Regression | Compounds):
            fitted = fit_atomic_energies(train, given)
            logger.info("E0s: %s", fitted.describe())
            known, source = dict(fitted.energies), given.method
        else:
            known, source = given, "E0s"
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


def fit_atomic_energies(structures: Catalogue, method: Regression | Compounds) -> ReferenceEnergies:
    """Atomic energies from the structures that have an energy of non-zero weight.

    Args:
        structures: catalogue of the samples.
        method: regression or compounds, see `mace_scf_jax.data.reference_energies`.

    Raises:
        DataError: the structures do not determine the energies.
    """
    labelled = structures.weights["energy"] > 0.0
    elements = structures.occurring_elements()
    try:
        return reference_energies(
            structures.counts_of(elements)[labelled],
            structures.energy[labelled],
            elements=elements,
            method=method,
        )
    except DataError as error:
        raise DataError(f"E0s, {error}") from None


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


def _parse(
    setting: Regression | Compounds | str | Path | Mapping[Any, Any],
) -> dict[int, float] | Regression | Compounds:
    """Energies by atomic number from a mapping, a JSON file or the text of a mapping; or how."""
    if isinstance(setting, Regression | Compounds):
        return setting
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
    if "method" in mapping:
        return _method(mapping)
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
