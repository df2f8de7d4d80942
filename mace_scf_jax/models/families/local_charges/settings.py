"""Settings of LocalCharges: conservation of charge, scales, readouts."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import OfHeads
from mace_scf_jax.models.family import FamilySettings
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.options import ConfigurationError

logger = logging.getLogger(__name__)

MACE = "MACE"
"""The backbone that reads with hidden features."""
SMALLEST_REMAINDER = 1e-3
"""e of a total charge that compositions do not tell; less is rounding of the data."""
_DIGITS = 12
"""Of numbers that are to be the same whenever they are measured."""
_INDEPENDENT = 1e-8
"""Singular value, relative to the largest, from which compositions count as independent."""


class Conservation(enum.StrEnum):
    """What becomes of charge that atoms have beyond the total charge of their structure."""

    NONE = "none"
    """It stays: the total charge is what the atoms add up to."""
    UNIFORM = "uniform"
    """All atoms of the structure give up the same."""
    LEARNED = "learned"
    """Atoms give it up in their neighbourhood, in proportion to learned weights."""


@dataclasses.dataclass(frozen=True)
class LocalChargesSettings(FamilySettings):
    """How charges are read and conserved, and the scale of energies.

    Raises:
        ValueError: there is no such way, or numbers are missing for it or of no use to it.
    """

    conserve_charge: str = Conservation.NONE
    """A value of `Conservation`."""
    element_charges: tuple[float, ...] | None = None
    """Charge of each element in e, before any is learned; for ``learned`` alone."""
    free_charges: tuple[tuple[float, ...], ...] = ()
    """Projector [elements, elements] on changes of these charges that alter the total charge of no
    composition of the training set, which are learned; empty for none, and but for ``learned``."""
    scale: OfHeads = 1.0
    """Factor on the energies that the backbone reads."""
    shift: OfHeads = 0.0
    """Energy per atom in eV beside that of the isolated atom."""
    charge_scale: float = 1.0
    """Factor on the multipoles that are read, to be in e Å^l."""
    read_like_energies: bool = False
    """Whether the last of several layers is read with hidden features, as its energy is."""

    def __post_init__(self) -> None:
        way = Conservation(self.conserve_charge)
        object.__setattr__(self, "conserve_charge", way.value)
        is_learned = way is Conservation.LEARNED
        if is_learned != (self.element_charges is not None):
            raise ValueError(
                f"conserve_charge {way.value}: expected element_charges with learned, and only "
                f"with it, found {self.element_charges}"
            )

    @property
    def has_polarization(self) -> bool:
        """Learned conservation moves charge along edges."""
        return self.conserve_charge == Conservation.LEARNED

    @property
    def conserves_charge(self) -> bool:
        """Whether charges add up to the total charge of the structure."""
        return self.conserve_charge != Conservation.NONE

    @property
    def reads_edges(self) -> bool:
        """Learned conservation moves charge along edges."""
        return self.conserve_charge == Conservation.LEARNED

    def as_options(self, elements: tuple[int, ...]) -> dict[str, Any]:
        """Return how multipoles are read, and how charges add up."""
        return {
            "charge_readout": "nonlinear" if self.read_like_energies else "linear",
            "conserve_charge": self.conserve_charge,
        }

    def with_elements(self, kept: Sequence[int]) -> FamilySettings:
        """Return the settings, whose charges of elements follow from all compositions together."""
        if self.element_charges is None or len(kept) == len(self.element_charges):
            return self
        raise ValueError(
            "conserve_charge learned: the charges of the elements were measured together, so that "
            "none can be left out or added"
        )

    def with_surplus(self, *, uniform: bool) -> FamilySettings:
        """Return settings without conservation, or with the uniform one."""
        if self.has_polarization:
            return super().with_surplus(uniform=uniform)
        way = Conservation.UNIFORM if uniform else Conservation.NONE
        return dataclasses.replace(self, conserve_charge=way)

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> LocalChargesSettings:
        """Return what the options ask for, with the charges of elements that it needs.

        Raises:
            ConfigurationError: the backbone does not read with hidden features.
        """
        way = options.conserve_charge
        nonlinear = options.charge_readout == "nonlinear"
        if nonlinear and options.backbone != MACE:
            raise ConfigurationError(
                f"charge_readout nonlinear: expected the backbone {MACE}, found "
                f"{options.backbone}, whose charges are read by networks of their own"
            )
        if nonlinear and options.num_interactions == 1:
            logger.warning(
                "charge_readout nonlinear: found num_interactions 1; charges of a single layer are "
                "read linearly"
            )
        if way != Conservation.LEARNED:
            return cls(way, read_like_energies=nonlinear)
        found = charges_of_elements(training.batches(), len(training.elements))
        symbols = [chemical_symbols[element] for element in training.elements]
        charges = ", ".join(
            f"{symbol} {charge:+.3f}" for symbol, charge in zip(symbols, found.charges, strict=True)
        )
        logger.info(
            "Charges of elements: %s e, of which %d combinations are learned",
            charges,
            round(sum(row[index] for index, row in enumerate(found.free))),
        )
        if found.remainder > SMALLEST_REMAINDER:
            logger.warning(
                "conserve_charge learned: total charges of training structures differ by up to "
                "%.3g e from what their composition tells; all atoms of a structure share that, "
                "however far apart they are",
                found.remainder,
            )
        return cls(way, found.charges, found.free, read_like_energies=nonlinear)

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse another number of charges than of elements."""
        expected = len(settings.elements)
        for charges in (self.element_charges, *self.free_charges):
            if charges is not None and len(charges) != expected:
                raise ValueError(
                    f"element_charges, free_charges: expected one number for each of the elements "
                    f"{settings.elements}, found {len(charges)}"
                )


class ElementCharges(NamedTuple):
    """Charges of elements by which compositions tell total charges."""

    charges: tuple[float, ...]
    """Of each element, e."""
    free: tuple[tuple[float, ...], ...]
    """Projector on changes of them that alter no total charge; empty if there are none."""
    remainder: float
    """Largest difference that is left, e."""


def charges_of_elements(batches: Iterable[Graph], num_elements: int) -> ElementCharges:
    """Charges of elements that add up to the total charges of structures, Σ n z = Q.

    Of all such charges, those nearest to the mean reference charge of each element (zero where
    there is none). Of structures with the same composition the one with the least charge counts, so
    that attached electrons do not: they are for the weights.

    Args:
        batches: with labels.
        num_elements: number of elements.
    """
    charge_of: dict[tuple[int, ...], float] = {}
    sums, counts = np.zeros(num_elements), np.zeros(num_elements)
    for graph in batches:
        real = np.asarray(graph.atom_mask)
        species, owner = np.asarray(graph.species)[real], np.asarray(graph.atom_graph)[real]
        composition = np.zeros((graph.num_graphs, num_elements), dtype=int)
        np.add.at(composition, (owner, species), 1)
        for index in np.flatnonzero(graph.graph_mask):
            key, charge = tuple(composition[index].tolist()), float(graph.total_charge[index])
            charge_of[key] = min(charge_of.get(key, charge), charge, key=abs)
        labelled = np.asarray(graph.weights["atomic_multipoles"])[owner] > 0.0
        labels = np.asarray(graph.labels["atomic_multipoles"], np.float64)[real][labelled]
        np.add.at(sums, species[labelled], labels[:, 0])
        np.add.at(counts, species[labelled], 1.0)
    means = sums / np.maximum(counts, 1.0)
    compositions = np.array(sorted(charge_of), dtype=np.float64).reshape(-1, num_elements)
    totals = np.array([charge_of[key] for key in sorted(charge_of)])
    norms = np.linalg.norm(compositions, axis=1)
    scaled = compositions / norms[:, None]
    inverse = np.linalg.pinv(scaled, rcond=_INDEPENDENT)
    charges = means + inverse @ ((totals - compositions @ means) / norms)
    free = np.eye(num_elements) - inverse @ scaled
    return ElementCharges(
        charges=tuple(np.round(charges, _DIGITS).tolist()),
        free=tuple(map(tuple, np.round(free, _DIGITS).tolist())) if np.trace(free) > 0.5 else (),
        remainder=float(np.max(np.abs(totals - compositions @ charges), initial=0.0)),
    )
