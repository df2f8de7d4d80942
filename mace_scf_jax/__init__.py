"""Charge-aware, self-consistent machine-learning interatomic potentials in JAX.

Importing the package enables float64 in JAX (models choose their own precision), also in processes
that are started from then on, and refuses a JAX version that is known to compute wrong numbers. JAX
itself is imported by those modules that compute.
"""

import importlib

from mace_scf_jax import _moved, runtime

_moved.find_moved_modules()
runtime.refuse_known_bad_jax()
runtime.enable_float64()

from mace_scf_jax._version import __version__  # noqa: E402

_MODULES = {
    "MACESCFCalculator": "mace_scf_jax.simulate.calculator",
    "Model": "mace_scf_jax.predict.model",
    "energy_function": "mace_scf_jax.simulate.functional",
    "load_model": "mace_scf_jax.predict.model",
    "train": "mace_scf_jax.training.run",
}

_NO_FOUNDATION = (
    "public models are imported by name, `mace-scf-jax import mace-mpa-0-medium --trust`, and used "
    "by MACESCFCalculator('mace-mpa-0-medium'); `mace-scf-jax import --list` names all"
)
_OF_MACE = {
    "MACECalculator": "the calculator is called MACESCFCalculator",
    **dict.fromkeys(
        ("mace_mp", "mace_off", "mace_omol", "mace_anicc", "mace_polar"), _NO_FOUNDATION
    ),
}
"""Names that users of MACE look for, and what there is in their place."""

__all__ = ["MACESCFCalculator", "Model", "__version__", "energy_function", "load_model", "train"]


def __getattr__(name: str):
    """What simulates and trains, imported when first used: what it needs takes seconds."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in _OF_MACE:
        # no AttributeError, whose text `from mace_scf_jax import …` does not show
        raise ImportError(f"mace_scf_jax has no {name}: {_OF_MACE[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, those of what is imported when first used among them."""
    return sorted({*globals(), *_MODULES})
