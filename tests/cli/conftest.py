from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from labelled_water import make_input, train_in


@pytest.fixture(scope="package", autouse=True)
def cached_compilations(tmp_path_factory):
    """The runs of these tests compile the same functions again and again."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def compiled_anew(cached_compilations):
    """Nothing is written to the cache or read: for whole trajectories XLA aborts in it (CPU)."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a training run that went through."""
    folder = tmp_path_factory.mktemp("finished")
    make_input(folder)
    assert train_in(folder, "--swa") == 0
    return folder
