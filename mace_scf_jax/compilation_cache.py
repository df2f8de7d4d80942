"""What XLA has compiled is kept for later runs: where, how much of it, and how to do without.

All of it is JAX's persistent compilation cache, with settings under which a second start takes
seconds. Commands use it unless told otherwise; a program calls `keep_compiled_functions`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from pathlib import Path

from mace_scf_jax.user_folder import user_folder

SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.01,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Settings of JAX: functions that take at least so many seconds to compile, whatever their size."""

SIZE = {"jax_compilation_cache_max_size": 512 * 2**20}
"""At most so many bytes, of which those that were not used for longest give way. JAX cannot limit a
folder that was filled without limit, such as one of the user's own may be."""

FOLDER = "JAX_COMPILATION_CACHE_DIR"
LONGEST_WAIT = 1.0
"""For the lock of the folder, in seconds."""


def keep_compiled_functions() -> Path | None:
    """Let JAX read functions that earlier runs have compiled, and keep those of this one.

    Numbers are those of functions that are compiled anew. Runs at the same time may share the
    folder. What JAX is told by its own variables of the environment holds: a folder of your own
    (``JAX_COMPILATION_CACHE_DIR``), ``JAX_ENABLE_COMPILATION_CACHE=false`` for none, or another
    size (``JAX_COMPILATION_CACHE_MAX_SIZE``, bytes).

    Call it before anything is compiled.

    Returns:
        The folder; None, with a warning, if it cannot be written to, or without one if JAX is told
        to keep nothing.
    """
    import jax

    if not jax.config.jax_enable_compilation_cache:
        return None
    folder, settings = jax.config.jax_compilation_cache_dir, SETTINGS
    if folder is None:
        settings = SETTINGS | SIZE
        folder = compiled_folder()
        problem = _made_ready(folder)
        if problem:
            warnings.warn(
                f"compiled functions are not kept for later runs: {folder}: {problem} "
                f"({FOLDER} names another folder)",
                stacklevel=2,
            )
            return None
        jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in settings.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return Path(folder)


def compiled_folder() -> Path:
    """The folder of compiled functions of this user and this kind of processor.

    Hosts that share the folder of a user may have other processors, which cannot run each other's
    functions.
    """
    return user_folder() / "compiled" / _processor()


def _processor() -> str:
    """A name for the kind of processor: of its family, model and instructions."""
    told = {platform.machine(), platform.processor()}
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        kinds = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU part")
        lines = listing.read_text(errors="replace").splitlines()
        told |= {line for line in lines if line.startswith(kinds)}
    return f"{platform.machine()}-{hashlib.sha256(repr(sorted(told)).encode()).hexdigest()[:12]}"


def _made_ready(folder: Path) -> str | None:
    """Make the folder, for its owner alone, without what was written by half; or say why not.

    JAX notes the time of use beside a function when it has been written, and cannot count
    functions without one.
    """
    import filelock  # of those who keep functions alone

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lockfile", timeout=LONGEST_WAIT):
            for entry in folder.glob("*-cache"):
                if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
                    entry.unlink()
    except filelock.Timeout:
        return None  # others are writing, and find what there is to be found
    except (OSError, NotImplementedError, RuntimeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
