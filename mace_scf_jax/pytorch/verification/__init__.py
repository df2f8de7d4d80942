"""Checks of layers, electrostatics and whole models against reference numbers."""

from __future__ import annotations

from pathlib import Path

from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.verification.blocks import verify_block
from mace_scf_jax.pytorch.verification.descriptor_training import verify_descriptor_training
from mace_scf_jax.pytorch.verification.descriptors import verify_descriptor
from mace_scf_jax.pytorch.verification.electrostatics import verify_electrostatics
from mace_scf_jax.pytorch.verification.fixed_point import verify_fixed_point
from mace_scf_jax.pytorch.verification.models import verify_model
from mace_scf_jax.pytorch.verification.polar_mace import verify_polar_mace
from mace_scf_jax.pytorch.verification.reference_energies import verify_reference_energies
from mace_scf_jax.pytorch.verification.reference_file import (
    Deviation,
    ReferenceFileError,
    read_reference_file,
)
from mace_scf_jax.pytorch.verification.training import verify_training

__all__ = ["Deviation", "ReferenceFileError", "verify"]


_BY_KIND = {
    "blocks": verify_block,
    "descriptor": verify_descriptor,
    "descriptor_training": verify_descriptor_training,
    "electrostatics": verify_electrostatics,
    "fixed_point": verify_fixed_point,
    "models": verify_model,
    "polar_mace": verify_polar_mace,
    "reference_energies": verify_reference_energies,
    "training": verify_training,
}


def verify(path: str | Path) -> list[Deviation]:
    """Recompute the outputs of a reference file and compare them.

    Args:
        path: the file, in the format of `ReferenceFile`.

    Returns:
        The largest deviation of every output that is compared.

    Raises:
        ReferenceFileError: the file is not in the reference format.
        ValueError: it describes a layer or model that this version does not have.
    """
    file = read_reference_file(path)
    try:
        return _BY_KIND[file.kind](file)
    except TorchConfigurationError as error:
        raise ReferenceFileError(f"{path}: {error}") from error
    except KeyError as error:
        raise ReferenceFileError(f"{path}: found no entry {error}") from error
