"""Models that others have published, by name: where they are, their licences, and on this disk.

Their files are modules of PyTorch. ``mace-scf-jax import NAME`` downloads one, once, and makes a
model file of it; from then on its name stands for that file. Of several heads each has a model
file of its own, and a name ``NAME:HEAD``.
"""

from mace_scf_jax.public_models.on_disk import (
    PublicModelError,
    Source,
    imported_names,
    model_file,
    models_folder,
    name_and_head,
    obtain,
    source_file,
)
from mace_scf_jax.public_models.releases import RELEASES, Release

__all__ = [
    "RELEASES",
    "PublicModelError",
    "Release",
    "Source",
    "imported_names",
    "model_file",
    "models_folder",
    "name_and_head",
    "obtain",
    "source_file",
]
