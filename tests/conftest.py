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
}

# Without optimisation the older of two ways to make CPU kernels compiles in half the time of the
# other. A later XLA has no choice, and stops at flags that it does not know.
if jaxlib.version.__version_info__ < (0, 11):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# Tracing makes many objects that live on. Looking through them for garbage as often as Python does
# by default takes 8% of the time.
gc.set_threshold(100_000, 20, 100)

# Check the annotations of every function, array shapes included. Has to come before the package is
# imported for the first time.
install_import_hook("mace_scf_jax", "typechecking.typechecked")


LONGEST_FILES = (
    "training/test_fixed_point_modes.py",
    "training/test_fixed_point_run.py",
    "pytorch/verification/test_reference_files.py",
    "models/test_self_consistency.py",
    "cli/test_training_run.py",
    "simulate/test_self_consistent_models.py",
    "training/test_devices.py",
    "simulate/test_self_consistent_calculator.py",
    "scf/test_differentiation.py",
    "models/test_energy_functional.py",
    "electrostatics/test_mesh.py",
    "cli/test_committee.py",
    "models/test_invariances.py",
    "training/test_kill_and_resume.py",
    "simulate/test_self_consistent_simulation.py",
)
"""Files of tests that take longest, the longest first."""


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that no process waits for another at the end."""
    rank = {name: number for number, name in enumerate(LONGEST_FILES)}
    tests = Path(__file__).parent

    def place(item):
        return rank.get(item.path.relative_to(tests).as_posix(), len(rank))

    items.sort(key=place)


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
