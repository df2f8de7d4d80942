"""Modules under the names that they had before version 0.2, so that programs keep working."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import warnings

MOVED = {
    "mace_scf_jax.backbone": "mace_scf_jax.backbones",
    "mace_scf_jax.exchange": "mace_scf_jax.pytorch",
    "mace_scf_jax.io": "mace_scf_jax.models.model_file",
    "mace_scf_jax.models.qeq": "mace_scf_jax.models.families.qeq.model",
    "mace_scf_jax.models.self_consistency": (
        "mace_scf_jax.models.families.fixed_point.self_consistency"
    ),
    "mace_scf_jax.simulate.model": "mace_scf_jax.predict.model",
    "mace_scf_jax.simulate.evaluation": "mace_scf_jax.predict.evaluation",
    "mace_scf_jax.simulate.committee": "mace_scf_jax.predict.committee",
    "mace_scf_jax.training.history": "mace_scf_jax.training.records.history",
    "mace_scf_jax.training.options": "mace_scf_jax.training.config.options",
    "mace_scf_jax.verification": "mace_scf_jax.pytorch.verification",
}
"""New name of each module, by its old one."""

OF_MACE = {"mace_scf_jax.calculators": "calculators of ASE are in mace_scf_jax.simulate"}
"""Modules that users of MACE look for, and where it is what they hold."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module that has moved where it is now, and says so."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname in OF_MACE:
            message = f"No module named {fullname!r}: {OF_MACE[fullname]}"
            raise ModuleNotFoundError(message, name=fullname)
        return importlib.util.spec_from_loader(fullname, self) if fullname in MOVED else None

    def create_module(self, spec):
        warnings.warn(
            f"{spec.name} has moved to {MOVED[spec.name]}", DeprecationWarning, stacklevel=2
        )
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        """Give the module its own description back; it has been executed under its own name."""
        module.__spec__ = module.__spec__.loader_state


def find_moved_modules() -> None:
    """Let old names be imported; called when the package is."""
    sys.meta_path.append(_Finder())
