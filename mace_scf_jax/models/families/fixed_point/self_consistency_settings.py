"""How the multipoles of fixed-point models are solved for."""

from __future__ import annotations

import dataclasses
import enum

from mace_scf_jax.scf import Auto, Differentiation, LinearMixing, Solver


class InitialDensity(enum.StrEnum):
    """Where the search for the multipoles starts."""

    LOCAL_GUESS = "local_guess"
    """The multipoles that the atoms have without a potential, a function of the geometry."""
    FROM_DATA = "from_data"
    """The reference multipoles of the batch; zero where there are none."""
    ZERO = "zero"


class InitialFermiLevel(enum.StrEnum):
    """Where the search for the Fermi level starts; at given levels, the level itself."""

    FROM_DATA = "from_data"
    """The Fermi level of each structure; 0 eV where the data have none."""
    ZERO = "zero"
    """The Fermi level offset of the model, at which it causes no field features."""


@dataclasses.dataclass(frozen=True)
class DirectStep:
    """No self-consistency: one step from the reference multipoles and Fermi levels of the data."""


@dataclasses.dataclass(frozen=True)
class SelfConsistency:
    """How the multipoles of a fixed-point model are solved for, and differentiated.

    Raises:
        ValueError: an unknown name, or choices that do not go together.
    """

    solver: Solver = dataclasses.field(default_factory=Auto)
    differentiation: Differentiation = Differentiation.IMPLICIT
    """A `Differentiation` or its name."""
    constant_charge: bool = True
    """Solve for the Fermi levels that give the total charges; otherwise Fermi levels are given."""
    initial_density: InitialDensity = InitialDensity.LOCAL_GUESS
    """An `InitialDensity` or its name."""
    initial_fermi_level: InitialFermiLevel = InitialFermiLevel.FROM_DATA
    """An `InitialFermiLevel` or its name."""
    fallback: LinearMixing | None = None
    """What a structure gets that the solver does not solve: the state after these steps,
    differentiated through them. None: the best state that the solver met."""
    differentiate_last_step_only: bool = False
    """Take the state before the last unrolled step as a constant (at given Fermi levels)."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("differentiation", Differentiation),
            ("initial_density", InitialDensity),
            ("initial_fermi_level", InitialFermiLevel),
        ):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, choices(value))
            except ValueError:
                raise ValueError(
                    f"{name}: expected {' or '.join(choices)}, found {value!r}"
                ) from None
        unrolled = self.differentiation is Differentiation.UNROLL
        if self.differentiate_last_step_only and (self.constant_charge or not unrolled):
            raise ValueError(
                "differentiate_last_step_only: expected differentiation 'unroll' at given Fermi "
                f"levels, found {self.differentiation.value!r}, "
                f"constant_charge {self.constant_charge}"
            )
        if self.fallback is not None and unrolled:
            raise ValueError(
                "fallback: expected none with differentiation 'unroll', which is what it falls "
                "back to"
            )
