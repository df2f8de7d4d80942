"""The lines that say what was loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

import numpy as np
from jaxtyping import Float

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.keys import KeySpecification


def property_counts(title: str, catalogue: Catalogue, keys: KeySpecification) -> str:
    """One line with the sum of the weights of each property over a set.

    Properties are listed in the order in which the user mapped them. For the dipole the weights
    of all components are added.

    Returns:
        `<title> [<property>: <count>, ...]`
    """
    counts = []
    for name in keys.names():
        if name == "head":
            counts.append(f"head: {len(catalogue)}")
            continue
        total = catalogue.weights[name].sum()
        label = "dipole components" if name == "dipole" else name
        counts.append(f"{label}: {int(total)}")
    return f"{title} [{', '.join(counts)}]"


def configuration_counts(
    train: Sized,
    valid: Sized,
    tests: Mapping[str, Sized],
) -> str:
    """One line with the number of configurations of each set."""
    groups = ", ".join(f"{name}: {len(group)}" for name, group in tests.items())
    return (
        f"Total number of configurations: train={len(train)}, valid={len(valid)}, tests=[{groups}]"
    )


def element_table(elements: Sequence[int]) -> str:
    """One line with the atomic numbers of a model."""
    return f"AtomicNumberTable: ({', '.join(str(number) for number in elements)})"


def atomic_energy_table(energies: Float[np.ndarray, "elements"]) -> str:
    """One line with the atomic energies in eV, in the order of the elements."""
    return f"Atomic energies: {[float(energy) for energy in energies]}"


def average_neighbours(value: float) -> str:
    """One line with the average number of neighbours."""
    return f"Average number of neighbors: {value}"


def formal_charges(charges: Sequence[float] | None) -> str:
    """One line with the formal charges in e, in the order of the elements.

    Args:
        charges: of the elements; None where every structure has its own.
    """
    return f"Formal charges: {'of each atom, from the data' if charges is None else list(charges)}"
