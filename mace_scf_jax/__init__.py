"""Charge-aware, self-consistent machine-learning interatomic potentials in JAX.

Importing the package enables float64 in JAX (models choose their own precision) and refuses a JAX
version that is known to compute wrong numbers.
"""

import importlib

from mace_scf_jax import _moved, runtime

_moved.find_moved_modules()
runtime.refuse_known_bad_jax()
runtime.enable_float64()

from mace_scf_jax._version import __version__  # noqa: E402

_MODULES = {
    "Model": "mace_scf_jax.predict.model",
    "energy_function": "mace_scf_jax.simulate.functional",
    "load_model": "mace_scf_jax.predict.model",
    "train": "mace_scf_jax.training.run",
}

__all__ = ["Model", "__version__", "energy_function", "load_model", "train"]


def __getattr__(name: str):
    """What simulates and trains, imported when first used: what it needs takes seconds."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, those of what is imported when first used among them."""
    return sorted({*globals(), *_MODULES})
