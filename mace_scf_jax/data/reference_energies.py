"""Energies of elements fitted to total energies: by regression, or from reference compounds.

Both solve A ε = E for the energies ε of the elements, A being the numbers of atoms. A regression
takes all samples alike; compounds are a few of them, so that E - Σ ε is the energy of formation
from these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from jaxtyping import Bool, Float, Int
from pydantic import Field

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.options import ConfigurationError, OptionGroup
from mace_scf_jax.options.values import (
    EnergiesOfElements,
    Number,
    PositiveWholeNumber,
    WholeNumberFromZero,
)
from mace_scf_jax.registry import unknown_name

SHOWN = 10
"""Compositions that a message lists at most."""

Compound = str | dict[str, int]
"""A formula, or numbers of atoms by the symbol of the element."""


class Regression(OptionGroup):
    """Energies of elements by linear regression over total energies"""

    method: Literal["regression"] = "regression"
    fixed: EnergiesOfElements = Field(
        default={}, description="energies in eV by element that are given, not fitted"
    )
    subset_size: PositiveWholeNumber | None = Field(
        default=None, description="number of samples drawn for the fit; all if there are fewer"
    )
    subset_fraction: Annotated[Number, Field(gt=0.0, le=1.0)] | None = Field(
        default=None, description="share of the samples drawn for the fit, rounded up"
    )
    seed: WholeNumberFromZero = Field(default=1, description="of the draw")

    def problems(self) -> list[str]:
        """Tell what does not go together."""
        if self.subset_size is not None and self.subset_fraction is not None:
            return ["subset_size and subset_fraction: found both, expected one of them"]
        return []

    def draw(self, count: int) -> Int[np.ndarray, "drawn"]:
        """Positions of the samples to use, ascending, out of so many."""
        size = count
        if self.subset_size is not None:
            size = min(self.subset_size, count)
        elif self.subset_fraction is not None:
            size = int(np.ceil(self.subset_fraction * count))
        return np.sort(np.random.default_rng(self.seed).permutation(count)[:size])


class Compounds(OptionGroup):
    """Energies of elements from the energies of reference compounds"""

    method: Literal["compounds"] = "compounds"
    compounds: tuple[Compound, ...] = Field(
        min_length=1, description="formulas, such as TiO2, or {Ti: 1, O: 2}"
    )
    fixed: EnergiesOfElements = Field(
        default={}, description="energies in eV by element that are given, not solved for"
    )

    def problems(self) -> list[str]:
        """Tell which compounds cannot be understood, or are given twice."""
        try:
            self.compositions()
        except DataError as error:
            return [str(error)]
        return []

    def compositions(self) -> dict[str, dict[int, int]]:
        """Numbers of atoms by atomic number in lowest terms, by formula in lowest terms.

        Raises:
            DataError: a formula makes no sense, or two are the same compound.
        """
        found: dict[str, dict[int, int]] = {}
        for compound in self.compounds:
            counts = _lowest_terms(_counts(compound))
            name = _formula(counts)
            if name in found:
                raise DataError(f"compounds: found {name} twice (the second time as {compound!r})")
            found[name] = counts
        return found


METHODS: Mapping[str, type[Regression | Compounds]] = {
    "regression": Regression,
    "compounds": Compounds,
}


def reference_method(values: Mapping[str, Any]) -> Regression | Compounds:
    """Read a block ``{method: regression, …}`` or ``{method: compounds, …}``.

    Raises:
        ConfigurationError: there is no such method, or a value makes no sense.
    """
    name = str(values.get("method"))
    if name not in METHODS:
        raise ConfigurationError(unknown_name("method", name, METHODS))
    return METHODS[name](**{str(key): value for key, value in values.items()})


@dataclasses.dataclass(frozen=True)
class ChosenSample:
    """The sample that stands for a compound: that of the lowest energy."""

    compound: str
    """Formula in lowest terms."""
    sample: int
    """Position among the samples."""
    candidates: int
    """Number of samples of that composition."""
    energy: float
    """eV per formula unit."""


@dataclasses.dataclass(frozen=True)
class ReferenceEnergies:
    """Energies of elements, and how well they are determined."""

    energies: Mapping[int, float]
    """eV, by atomic number: solved for and fixed ones, in ascending order."""
    fixed: tuple[int, ...]
    """Atomic numbers of those that were given."""
    samples: int
    """Number of samples, or compounds, that the equations are of."""
    total: int
    """Number of samples that there are."""
    rank: int
    """Of the equations; the number of energies that were solved for."""
    singular_values: tuple[float, ...]
    """Of the matrix of numbers of atoms, largest first."""
    residual_sum_of_squares: float
    """eV²."""
    compounds: tuple[ChosenSample, ...] = ()
    """What the equations are of with the method compounds."""

    @property
    def rmse(self) -> float:
        """Root of the mean squared error of the total energies (of formula units), eV."""
        return float(np.sqrt(self.residual_sum_of_squares / self.samples))

    def describe(self) -> str:
        """Tell in one line how well they are determined."""
        if self.compounds:
            chosen = ", ".join(
                f"{it.compound} ({it.candidates} structures, lowest {it.energy:.6f} eV)"
                for it in self.compounds
            )
            source = f"compounds {chosen}"
        else:
            source = f"regression over {self.samples} of {self.total} structures"
        return f"{source}: rank {self.rank}, RMSE {self.rmse:.6g} eV"


def reference_energies(
    counts: Int[np.ndarray, "samples elements"],
    energies: Float[np.ndarray, "samples"],
    *,
    elements: Sequence[int],
    method: Regression | Compounds,
) -> ReferenceEnergies:
    """Energies of elements from the compositions and total energies of samples.

    Elements that no sample has are left out, unless they are fixed.

    Args:
        counts: number of atoms of each element.
        energies: total energies, eV.
        elements: atomic numbers of the columns of `counts`.
        method: how, with its settings.

    Returns:
        One energy for each element that occurs or is fixed.

    Raises:
        DataError: there is no sample; the equations do not determine every energy that is not
            fixed; the subset lacks an element; or a compound has no sample.
    """
    counts, energies = np.asarray(counts), np.asarray(energies, dtype=np.float64)
    if len(energies) == 0:
        raise DataError(f"method {method.method}: found no structure with an energy")
    occurring = [number for number, column in zip(elements, counts.T, strict=True) if column.any()]
    counts = counts[:, [list(elements).index(number) for number in occurring]]
    if isinstance(method, Regression):
        rows, chosen = method.draw(len(energies)), ()
        equations, totals = counts[rows], energies[rows]
        _check_covered(occurring, equations, method.fixed, "the subset that was drawn holds no")
    else:
        chosen, compositions = _lowest_of_each(method, counts, energies, occurring)
        equations = np.array([[it.get(z, 0) for z in occurring] for it in compositions])
        totals = np.array([it.energy for it in chosen])
        _check_covered(occurring, equations, method.fixed, "none of the compounds has")
    free = [number for number in occurring if number not in method.fixed]
    if not free:
        raise DataError("fixed: found the energies of all elements, so that nothing is left to fit")
    matrix = equations[:, [occurring.index(number) for number in free]].astype(np.float64)
    fixed = np.array([method.fixed.get(number, 0.0) for number in occurring])
    right = totals - equations @ fixed
    solution, _, rank, singular_values = np.linalg.lstsq(matrix, right, rcond=None)
    if rank < len(free):
        raise DataError(
            f"method {method.method}: found {rank} independent equations for the energies of "
            f"{_symbols(free)}, expected {len(free)}; give some of them in `fixed`, such as "
            f"fixed: {{{chemical_symbols[free[-1]]}: …}}"
            + ("" if not chosen else ", or further compounds")
        )
    found = dict(zip(free, solution.tolist(), strict=True)) | dict(method.fixed)
    return ReferenceEnergies(
        energies=dict(sorted(found.items())),
        fixed=tuple(sorted(method.fixed)),
        samples=len(totals),
        total=len(energies),
        rank=int(rank),
        singular_values=tuple(singular_values.tolist()),
        residual_sum_of_squares=float(np.sum((matrix @ solution - right) ** 2)),
        compounds=tuple(chosen),
    )


def _check_covered(
    occurring: Sequence[int], equations: np.ndarray, fixed: Mapping[int, float], why: str
) -> None:
    """Refuse equations in which an element of the data does not occur, unless it is fixed."""
    absent = [
        number
        for number, column in zip(occurring, equations.T, strict=True)
        if not column.any() and number not in fixed
    ]
    if absent:
        raise DataError(
            f"energies of elements: {why} {_symbols(absent)}, which the structures have; give "
            "their energies in `fixed`, or more to solve for them"
        )


def _lowest_of_each(
    method: Compounds, counts: np.ndarray, energies: np.ndarray, elements: Sequence[int]
) -> tuple[list[ChosenSample], list[dict[int, int]]]:
    """The sample of lowest energy per formula unit of every compound, and the compositions.

    Raises:
        DataError: no sample has the composition of a compound; names those that there are.
    """
    units = np.maximum(np.gcd.reduce(counts, axis=1), 1)
    reduced = counts // units[:, None]
    compositions = method.compositions()
    chosen = []
    for name, composition in compositions.items():
        wanted = np.array([composition.get(number, 0) for number in elements])
        absent = set(composition) - set(elements)
        rows = np.flatnonzero(_equal_rows(reduced, wanted)) if not absent else np.array([], int)
        if len(rows) == 0:
            there = dict.fromkeys(
                _formula(dict(zip(elements, row, strict=True))) for row in reduced.tolist()
            )
            more = ", …" if len(there) > SHOWN else ""
            raise DataError(
                f"compounds: found no structure of the composition {name} that has an energy; "
                f"compositions that occur: {', '.join(list(there)[:SHOWN])}{more}"
            )
        best = rows[np.argmin(energies[rows] / units[rows])]
        energy = float(energies[best] / units[best])
        chosen.append(ChosenSample(name, int(best), len(rows), energy))
    return chosen, list(compositions.values())


def _equal_rows(table: np.ndarray, row: np.ndarray) -> Bool[np.ndarray, "rows"]:
    return np.all(table == row, axis=1)


def _counts(compound: Compound) -> dict[int, int]:
    """Number of atoms by atomic number, all above zero.

    Raises:
        DataError: it is no formula.
    """
    if isinstance(compound, str):
        try:
            counts = Formula(compound.strip(), strict=True).count()
        except ValueError:
            counts = {}
    else:
        counts = {symbol: count for symbol, count in compound.items() if count}
    unknown = [symbol for symbol in counts if atomic_numbers.get(symbol, 0) == 0]
    if not counts or unknown or min(counts.values()) < 1:
        raise DataError(
            f"compounds: found {compound!r}, expected a formula such as TiO2 or {{Ti: 1, O: 2}}"
        )
    return {atomic_numbers[symbol]: count for symbol, count in counts.items()}


def _lowest_terms(counts: Mapping[int, int]) -> dict[int, int]:
    divisor = np.gcd.reduce(list(counts.values()))
    return {number: int(count // divisor) for number, count in counts.items()}


def _formula(counts: Mapping[int, int]) -> str:
    """Text of a composition, metals first: Formula writes TiO2, Li2O, H2O."""
    symbols = {chemical_symbols[number]: count for number, count in counts.items() if count}
    return f"{Formula.from_dict(symbols):metal}"


def _symbols(numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in numbers)
