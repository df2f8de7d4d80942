"""Checks of layers, electrostatics and whole models against reference numbers."""

from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFileError
from mace_scf_jax.pytorch.verification.verify import verify

__all__ = ["Deviation", "ReferenceFileError", "verify"]
