"""Model families: backbone and electrostatics put together, and their observables."""

from mace_scf_jax.models.observables import evaluate
from mace_scf_jax.models.registry import CHARGED_FAMILIES, FAMILIES, build
from mace_scf_jax.models.settings import ModelSettings

__all__ = ["CHARGED_FAMILIES", "FAMILIES", "ModelSettings", "build", "evaluate"]
