"""What holds for all tests and the processes that they start."""

import gc
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

SETTINGS = {
    # Never mix integers and floats, or single and double precision, by accident.
    "jax_numpy_dtype_promotion": "strict",
    # Tests compile far more than they compute; without optimisation that takes half as long.
    "jax_disable_most_optimizations": True,
}

for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# Check the annotations of every function, array shapes included. Has to come before the package is
# imported for the first time.
install_import_hook("mace_scf_jax", "typechecking.typechecked")


MOST_MAPPINGS = 20_000


@pytest.fixture(scope="module", autouse=True)
def compiled_functions_released():
    """Let go of compiled functions before the process runs out of memory mappings.

    Each takes some, and Linux lets a process have 65,530: where they end, the next compilation
    kills it.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
