"""Charge-aware, self-consistent machine-learning interatomic potentials in JAX.

Importing the package enables float64 in JAX (models choose their own precision) and refuses a JAX
version that is known to compute wrong numbers.
"""

from mace_scf_jax import runtime

runtime.refuse_known_bad_jax()
runtime.enable_float64()

from mace_scf_jax._version import __version__  # noqa: E402

__all__ = ["Model", "__version__", "load_model"]


def __getattr__(name: str):
    """`Model` and `load_model`, imported when first used: what they need takes seconds."""
    if name in ("Model", "load_model"):
        from mace_scf_jax.simulate import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
