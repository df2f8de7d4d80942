"""What holds for all tests and the processes that they start."""

import gc
import os
from pathlib import Path

import jax
import jaxlib
import pytest
from jaxtyping import install_import_hook

SETTINGS = {
    # Never mix integers and floats, or single and double precision, by accident.
    "jax_numpy_dtype_promotion": "strict",
    # Tests compile far more than they compute; without optimisation that takes half as long.
    "jax_disable_most_optimizations": True,
    # Of compiled functions, keep those that took longer than it takes to read them.
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}

# Without optimisation the older of two ways to make CPU kernels compiles in half the time of the
# other. To divide a function among threads takes a sixth of the rest, and serves nothing where
# every core has its own worker. A later XLA has no choice, and stops at flags that it does not
# know.
if jaxlib.version.__version_info__ < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# Tracing makes many objects that live on. Looking through them for garbage as often as Python does
# by default takes 8% of the time.
gc.set_threshold(100_000, 20, 100)

# Check the annotations of every function, array shapes included. Has to come before the package is
# imported for the first time.
install_import_hook("mace_scf_jax", "typechecking.typechecked")


def pytest_configure(config):
    """Keep what is compiled for later runs, and for the processes that tests start.

    More than half of the time goes into compiling; `pytest --cache-clear` forgets it.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    folder = str(config.cache.mkdir("compiled"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)


@pytest.fixture(scope="module")
def model():
    """A small model with local charges and random parameters."""
    from tiny_models import tiny_model  # not before the hook above

    return tiny_model()


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
