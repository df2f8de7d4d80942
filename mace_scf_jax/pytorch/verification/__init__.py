"""Checks of layers, electrostatics and whole models against reference numbers."""

from mace_scf_jax.pytorch.verification.reference_file import ReferenceFileError
from mace_scf_jax.pytorch.verification.report import Deviation
from mace_scf_jax.pytorch.verification.verify import verify

__all__ = ["Deviation", "ReferenceFileError", "verify"]
