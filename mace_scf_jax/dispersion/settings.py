"""Which dispersion a model has, validated when made."""

from __future__ import annotations

import dataclasses
import math

from ase.units import Bohr

from mace_scf_jax.dispersion.library import damping_parameters, element_data
from mace_scf_jax.registry import unknown_name

METHODS = ("d3bj", "d3bjatm")
"""Kinds of dispersion that models can have as a part: D3 with Becke–Johnson damping, without and
with the three-body term."""
NO_DISPERSION = "none"
"""In place of a method: without."""

CUTOFF = 60.0 * Bohr
"""Å; distance up to which pairs are summed, unless told otherwise: that of ``dftd3``."""
COORDINATION_CUTOFF = 40.0 * Bohr
"""Å; distance up to which neighbours are counted, that of ``dftd3``."""
THREE_BODY_CUTOFF = 40.0 * Bohr
"""Å; longest side of a triangle of atoms, unless told otherwise: that of ``dftd3``."""


class DispersionError(ValueError):
    """A dispersion was asked for that makes no sense, or that there is not."""


@dataclasses.dataclass(frozen=True)
class DispersionSettings:
    """Method, functional and lengths of a dispersion energy.

    Raises:
        DispersionError: there is no such method, or a number is out of range.
    """

    method: str
    """One of `METHODS`."""
    functional: str
    """Density functional whose parameters these are, in lower case."""
    s6: float
    """Factor on the dipole–dipole term."""
    s8: float
    """Factor on the dipole–quadrupole term."""
    a1: float
    """Factor on the critical radii in the damping."""
    a2: float
    """Length that is added to them, in bohr."""
    cutoff: float = CUTOFF
    """Distance in Å up to which pairs are summed. There they are cut off, without a switch."""
    coordination_cutoff: float = COORDINATION_CUTOFF
    """Distance in Å up to which neighbours are counted."""
    three_body_cutoff: float = THREE_BODY_CUTOFF
    """Longest side in Å of the triangles that the three-body term sums over."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise DispersionError(f"dispersion: {_unknown_method(self.method)}")
        for field in ("cutoff", "coordination_cutoff", "three_body_cutoff"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0.0):
                raise DispersionError(
                    f"dispersion: expected a positive length in Å as {field}, found {value!r}"
                )

    @classmethod
    def of(
        cls,
        method: str,
        functional: str | None,
        elements: tuple[int, ...],
        *,
        cutoff: float | None = None,
    ) -> DispersionSettings:
        """The dispersion of a density functional.

        Args:
            method: one of `METHODS`.
            functional: its name, whatever the case, such as ``pbe``.
            elements: atomic numbers that there have to be reference values for.
            cutoff: distance in Å up to which pairs are summed; neighbours are counted, and
                triangles summed, up to this too where it is shorter than theirs. None for that of
                ``dftd3``.

        Raises:
            DispersionError: there is no such method or functional; names those like it.
            MissingPackageError: the package ``dftd3`` is not installed.
            UnknownElementError: names elements without reference values.
        """
        if method not in METHODS:
            raise DispersionError(f"dispersion: {_unknown_method(method)}")
        if functional is None:
            raise DispersionError(
                "dispersion: expected the density functional of the model's training data "
                "(dispersion_functional, such as 'pbe'), found none"
            )
        element_data(elements)
        reach = CUTOFF if cutoff is None else cutoff
        name = functional.lower()
        return cls(
            method=method,
            functional=name,
            **damping_parameters(name),
            cutoff=reach,
            coordination_cutoff=min(COORDINATION_CUTOFF, reach),
            three_body_cutoff=min(THREE_BODY_CUTOFF, reach),
        )

    @property
    def has_three_body(self) -> bool:
        """Whether the term of Axilrod, Teller and Muto is added."""
        return self.method.endswith("atm")

    @property
    def words(self) -> str:
        """One short line."""
        return f"{self.method} of {self.functional}, cutoff {self.cutoff:.2f} Å"


def refuse_dispersion(settings: DispersionSettings | None, where: str) -> None:
    """Refuse to leave out the dispersion of a model.

    Args:
        settings: of the dispersion; None where there is none.
        where: what cannot have it.

    Raises:
        DispersionError: there is one.
    """
    if settings is not None:
        raise DispersionError(
            f"dispersion: found {settings.words} in the model, which {where} cannot have; with "
            "dispersion='none' (--dispersion none) only what the model has learned is written"
        )


def _unknown_method(method: object) -> str:
    if isinstance(method, str) and method.lower().startswith("d4"):
        return (
            f"found {method!r}; D4 is not part of a model: the calculator `dftd4.ase.DFTD4` of the "
            "package dftd4 is added with ase.calculators.mixing.SumCalculator"
        )
    return unknown_name("method", method, METHODS)
