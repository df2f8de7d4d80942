"""Settings of charge equilibration."""

from __future__ import annotations

import dataclasses

import numpy as np

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.models.electrostatics import check_hardness
from mace_scf_jax.models.family import FamilySettings

ENEGS_INPUT = "enegs"
"""Per-atom input that holds electronegativities in eV/e."""
HARDNESS_INPUT = "hardness"
"""Per-atom input that holds hardnesses in eV/e²."""

DENSE_MAX_ATOMS = 64
"""Up to here writing out the matrix is faster than conjugate gradients."""


@dataclasses.dataclass(frozen=True)
class ChargeEquilibrationSettings(FamilySettings):
    """Where electronegativities and hardnesses come from, and how charges are solved for.

    Raises:
        ValueError: the default hardness is not positive.
    """

    read_enegs: bool = False
    """Add the electronegativity of each atom in the data to the learned one."""
    read_hardness: bool = False
    """Start from the hardness of each atom in the data instead of the default."""
    train_hardness: bool = False
    """Add a learned hardness."""
    default_hardness: float = 2.0
    """Hardness in eV/e² where none is read."""
    dense_max_atoms: int = DENSE_MAX_ATOMS
    """Largest (padded) number of atoms of a structure for which the matrix is written out."""

    def __post_init__(self) -> None:
        check_hardness(self.default_hardness)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read of every atom."""
        wanted = {ENEGS_INPUT: self.read_enegs, HARDNESS_INPUT: self.read_hardness}
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def check_structure(self, configuration: Configuration) -> None:
        """Refuse hardnesses that are not positive."""
        if not self.read_hardness:
            return
        hardness = configuration.values[HARDNESS_INPUT]
        if np.any(hardness <= 0.0):
            atom = int(np.argmax(hardness <= 0.0))
            raise DataError(
                f"{configuration.location}: found hardness {hardness[atom]:g} eV/e² of atom "
                f"{atom}, expected positive numbers, because charges would grow without limit"
            )
