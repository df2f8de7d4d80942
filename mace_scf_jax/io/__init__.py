"""Model files."""

from mace_scf_jax.io.model_file import ModelFile, ModelFileError, load_model_file, save_model

__all__ = ["ModelFile", "ModelFileError", "load_model_file", "save_model"]
