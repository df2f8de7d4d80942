"""Checks of layers, electrostatics and whole models against reference numbers."""

from mace_scf_jax.verification.reference_file import ReferenceFileError
from mace_scf_jax.verification.report import Deviation
from mace_scf_jax.verification.verify import verify

__all__ = ["Deviation", "ReferenceFileError", "verify"]
