"""Formal charges of the atoms of a batch, by element or from the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from ase.data import chemical_symbols
from jaxtyping import Array, Float

from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.family import FamilySettings
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.options import ConfigurationError

FORMAL_CHARGES_INPUT = "charges"
"""Per-atom input that holds formal charges."""


@dataclasses.dataclass(frozen=True)
class FormalChargeSettings(FamilySettings):
    """Where formal charges come from."""

    formal_charges: tuple[float, ...] | None = None
    """Formal charge of each element in e; None: every structure has its own, per atom."""

    def __post_init__(self) -> None:
        if self.formal_charges is not None:
            object.__setattr__(self, "formal_charges", tuple(float(q) for q in self.formal_charges))

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> FormalChargeSettings:
        """Return what the options describe.

        Raises:
            ConfigurationError: charges are missing for an element, or given for others.
        """
        return cls(formal_charges_of(options, training.elements))

    def as_options(self, elements: tuple[int, ...]) -> dict[str, Any]:
        """Return where formal charges come from."""
        if self.formal_charges is None:
            return {"formal_charges_from_data": True}
        charges = dict(zip(elements, self.formal_charges, strict=True))
        return {"atomic_formal_charges": charges}

    def with_elements(self, kept: Sequence[int]) -> FormalChargeSettings:
        """Return the settings with the charges of these elements."""
        charges = self.formal_charges
        some = None if charges is None else tuple(charges[index] for index in kept)
        return dataclasses.replace(self, formal_charges=some)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The charges of the data, where elements have none."""
        return (FORMAL_CHARGES_INPUT,) if self.formal_charges is None else ()

    @property
    def has_polarization(self) -> bool:
        """Formal charges move with their atoms, and charge is transferred along edges."""
        return True

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse another number of charges than of elements."""
        if self.formal_charges is not None and len(self.formal_charges) != len(settings.elements):
            raise ValueError(
                f"formal_charges: expected one charge for each of the elements "
                f"{settings.elements}, found {len(self.formal_charges)}"
            )


def formal_charges_of(options: Any, elements: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return the formal charge of each element; None if every structure has its own.

    Raises:
        ConfigurationError: charges are missing for an element, or given for others.
    """
    if options.formal_charges_from_data:
        return None
    given = options.atomic_formal_charges
    problems = []
    for problem, wrong in (
        ("no charge for", set(elements) - given.keys()),
        ("charges for elements that the training set does not have:", given.keys() - set(elements)),
    ):
        if wrong:
            symbols = ", ".join(chemical_symbols[element] for element in sorted(wrong))
            problems.append(f"option 'atomic_formal_charges': found {problem} {symbols}")
    if problems:
        raise ConfigurationError(*problems)
    return tuple(given[element] for element in elements)


def formal_charges(
    settings: ModelSettings[FormalChargeSettings], graph: Graph
) -> Float[Array, "atoms"]:
    """Return the formal charge of every atom in e; zero for padding atoms."""
    if settings.own.formal_charges is None:
        charges = jnp.asarray(graph.atom_data[FORMAL_CHARGES_INPUT])
    else:
        by_element = jnp.asarray(settings.own.formal_charges, graph.dtype)
        charges = by_element[graph.species]
    return jnp.where(graph.atom_mask, charges, 0.0)
