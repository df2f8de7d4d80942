"""What must hold before any array is made: double precision, and a JAX that computes right.

And what makes a process that runs a command faster: `prepare_command`.
"""

import ctypes
import functools
import gc
import importlib.metadata
import os
import platform
import sys
from typing import TYPE_CHECKING

from mace_scf_jax.compilation_cache import keep_compiled_functions

if TYPE_CHECKING:
    pass

KNOWN_BAD_JAX = "0.10.2"
FUSION_FLAG_OFF = "--xla_cpu_experimental_ynn_fusion_type="
TRITON_FLAG = "--xla_gpu_enable_triton_gemm"


class UnsupportedJaxError(ImportError):
    """The installed JAX is known to give wrong numbers."""


def refuse_known_bad_jax(version: str | None = None) -> None:
    """Refuse to run on a JAX that miscompiles our kernels.

    jax 0.10.2 on CPU silently returns wrong values for a vmapped matrix-vector product followed by
    a reduction above about 16,000 rows (public issue jax#39103).

    Args:
        version: version string of the installed JAX; it is looked up where None.

    Raises:
        UnsupportedJaxError: ``version`` is 0.10.2 and the faulty fusion is not switched off
            in ``XLA_FLAGS``.
    """
    faulty_fusion_off = FUSION_FLAG_OFF in os.environ.get("XLA_FLAGS", "").split()
    version = importlib.metadata.version("jax") if version is None else version
    if version == KNOWN_BAD_JAX and not faulty_fusion_off:
        raise UnsupportedJaxError(
            f"jax {KNOWN_BAD_JAX} gives silently wrong values on CPU (jax issue #39103). "
            f'Install another version ("jax!={KNOWN_BAD_JAX}"; 0.10.1 is right), or switch the '
            f"faulty fusion off with XLA_FLAGS={FUSION_FLAG_OFF}"
        )


@functools.cache
def refuse_wrong_numbers() -> None:
    """Refuse to run on a JAX that has the fault of 0.10.2, whatever its version.

    It compiles a small function that this fault shows in, which takes some 50 ms, once in a
    process.

    Raises:
        UnsupportedJaxError: a compiled function returned wrong numbers.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    numbers = np.arange(20_000.0)
    rows = np.stack([numbers, np.zeros_like(numbers), np.zeros_like(numbers)], axis=1)

    def squares(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(rows)

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        wrong = np.asarray(jax.jit(squares)(rows)) != numbers**2
    if wrong.any():
        raise UnsupportedJaxError(
            f"jax {jax.__version__} gives wrong values on CPU: {int(wrong.sum())} of {len(wrong)} "
            f"numbers of a small function, as jax {KNOWN_BAD_JAX} does (jax issue #39103). Install "
            f"another version, or switch the faulty fusion off with XLA_FLAGS={FUSION_FLAG_OFF}"
        )


def enable_float64() -> None:
    """Let JAX hold float64 arrays; models choose their own precision.

    A JAX that is not imported yet reads it from the environment.
    """
    os.environ["JAX_ENABLE_X64"] = "true"
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", True)


# parameters of mallopt(3) and their numbers in <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep the memory that compiled functions free, for their next call.

    On CPU, XLA allocates the temporary memory of a compiled function anew in each call. With glibc
    that memory comes fresh from the system every time, and touching its pages can take as long as
    the computation. Kept, it is reused; the process holds on to its peak memory.

    Call it once, before anything is computed. The command line does.

    Returns:
        Whether it took effect; elsewhere than on Linux with glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER_TRIM))
    return all(mallopt(name, value) == 1 for name, value in settings)


def compile_without_triton_search() -> None:
    """Let XLA on a GPU take its library's matrix products, not try kernels of its own for each.

    The products here are small: the search finds nothing faster, and is most of the time to
    compile (one NVIDIA H200: 97 against 12 s for energy and forces, 167 against 54 s for a training
    step). Whoever names the flag in ``XLA_FLAGS`` decides.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if TRITON_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {TRITON_FLAG}=false".strip()


def look_for_garbage_rarely() -> None:
    """Let Python look for garbage in circles of references a hundred times less often.

    Tracing makes very many objects that live on, and looking through them takes a quarter of its
    time.
    """
    gc.set_threshold(100_000, 20, 100)


def prepare_command() -> None:
    """Settings of a process that runs a command. Call it before anything is computed."""
    keep_freed_memory()
    look_for_garbage_rarely()
    compile_without_triton_search()
    keep_compiled_functions()
