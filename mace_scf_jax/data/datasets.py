"""Training, validation and test sets from files, checked and reported."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import ase
import numpy as np
from jaxtyping import Float

from mace_scf_jax.boundary import ALLOWED_PBC
from mace_scf_jax.data import checks, summary
from mace_scf_jax.data.atomic_energies import AtomicEnergySetting, atomic_energies
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import read_atoms, to_configurations
from mace_scf_jax.data.splitting import describe_split, random_split

logger = logging.getLogger("mace_scf_jax")

HEAD = "Default"
"""Name of the only head, part of the names of test sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which files to load and how; the names are those of the training options."""

    train_file: str | Path
    keys: KeySpecification
    multipoles_max_l: int
    valid_file: str | Path | None = None
    test_file: str | Path | None = None
    valid_fraction: float = 0.1
    valid_set_seed: int = 123
    work_dir: str | Path = "."
    """Where `valid_indices_<seed>.txt` is meant to go, for the log; see `save_split`."""
    E0s: AtomicEnergySetting = None
    config_type_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    electrostatic_pbc_method: str = "mixed_periodic"
    override_pbc_checks: bool = False
    allow_low_density_pbc: bool = False
    low_density_pbc_max_volume_per_atom: float = 100.0

    def __post_init__(self) -> None:
        if self.multipoles_max_l < 0:
            raise DataError(
                f"atomic_multipoles_max_l: found {self.multipoles_max_l}, expected 0 or more"
            )
        if self.electrostatic_pbc_method not in ALLOWED_PBC:
            raise DataError(
                f"electrostatic_pbc_method: found {self.electrostatic_pbc_method!r}, expected one "
                f"of {', '.join(ALLOWED_PBC)}"
            )
        for name, weight in self.config_type_weights.items():
            if not (np.isfinite(weight) and weight >= 0.0):
                raise DataError(
                    f"config_type_weights, {name}: found {weight}, expected a finite number ≥ 0"
                )


@dataclasses.dataclass(frozen=True)
class DataSets:
    """What a training run reads from its files."""

    train: tuple[Configuration, ...]
    valid: tuple[Configuration, ...]
    tests: Mapping[str, tuple[Configuration, ...]]
    """Test configurations by `<config_type>_Default`, in order of first appearance."""
    elements: tuple[int, ...]
    """Atomic numbers of the training and validation sets, ascending."""
    atomic_energies: Float[np.ndarray, "elements"]
    """Energies of free atoms, eV."""
    keys: KeySpecification
    valid_indices: tuple[int, ...] = ()
    """Positions of a random validation set among the configurations of the training file that are
    not isolated atoms; empty if the validation set has its own file."""


def load_datasets(settings: DataSettings) -> DataSets:
    """Read, check and split the data of a training run, and log what was found.

    No file is written, so that data which are refused leave nothing behind.

    Raises:
        DataError: if a file or anything in it cannot be used.
    """
    named = {"train": settings.train_file, "valid": settings.valid_file, "test": settings.test_file}
    files = {split: str(file) for split, file in named.items() if file is not None}
    structures = {split: read_atoms(file) for split, file in files.items()}
    _check_structures(structures, files, settings)
    sets = {
        split: _configurations(structures[split], file, settings) for split, file in files.items()
    }

    isolated_atoms = [entry for entry in sets["train"] if entry.is_isolated_atom()]
    train = [entry for entry in sets["train"] if not entry.is_isolated_atom()]
    if not train:
        raise DataError(f"{settings.train_file}: found only isolated atoms")
    _log_set("Training", train, settings.keys)
    if "valid" in sets:
        valid, valid_indices = sets["valid"], []
        _log_set("Validation", valid, settings.keys)
    else:
        train, valid, valid_indices = _split(train, settings)
    tests = _group(sets.get("test", []))
    if tests:
        _log_set("Test", sets["test"], settings.keys)
    logger.info(summary.configuration_counts(train, valid, tests))

    _check_densities(
        {
            "train": train,
            "valid": valid,
            **{f"test:{name}": group for name, group in tests.items()},
        },
        settings,
    )
    elements = tuple(
        int(z) for z in np.unique(np.concatenate([e.atomic_numbers for e in (*train, *valid)]))
    )
    logger.info(summary.element_table(elements))
    energies = atomic_energies(
        settings.E0s, elements=elements, train=train, isolated_atoms=isolated_atoms
    )
    logger.info(summary.atomic_energy_table(energies))
    return DataSets(
        train=tuple(train),
        valid=tuple(valid),
        tests=tests,
        elements=elements,
        atomic_energies=energies,
        keys=settings.keys,
        valid_indices=tuple(valid_indices),
    )


def _check_structures(
    structures: Mapping[str, Sequence[ase.Atoms]],
    files: Mapping[str, str],
    settings: DataSettings,
) -> None:
    """Checks of what the files hold against the settings, before anything is converted."""
    for split, members in structures.items():
        checks.check_dipole_weights(members, settings.keys, split=split, file=files[split])
    if not settings.override_pbc_checks:
        for split, members in structures.items():
            checks.check_pbc(
                members,
                method=settings.electrostatic_pbc_method,
                split=split,
                file=files[split],
            )
    checks.check_keys_occur(structures["train"], settings.keys, files["train"])


def _configurations(
    structures: Sequence[ase.Atoms], file: str, settings: DataSettings
) -> list[Configuration]:
    """The configurations of one file."""
    configurations = to_configurations(
        structures,
        settings.keys,
        file=file,
        multipoles_max_l=settings.multipoles_max_l,
        config_type_weights=settings.config_type_weights,
    )
    checks.check_something_to_fit(configurations, file)
    return configurations


def _split(
    train: Sequence[Configuration], settings: DataSettings
) -> tuple[list[Configuration], list[Configuration], list[int]]:
    """A random part of the training configurations for validation, and its indices."""
    logger.info("No validation set provided, splitting training data instead.")
    train_indices, valid_indices = random_split(
        len(train), fraction=settings.valid_fraction, seed=settings.valid_set_seed
    )
    logger.info(
        describe_split(
            valid_indices,
            fraction=settings.valid_fraction,
            seed=settings.valid_set_seed,
            work_dir=Path(settings.work_dir),
        )
    )
    parts = [train[i] for i in train_indices], [train[i] for i in valid_indices]
    for title, part in zip(("Training", "Validation"), parts, strict=True):
        logger.info(summary.property_counts(f"Random Split {title} set", part, settings.keys))
    return *parts, valid_indices


def _group(tests: Sequence[Configuration]) -> dict[str, tuple[Configuration, ...]]:
    """Test configurations by config type and head, in order of first appearance."""
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for entry in tests:
        groups[f"{entry.config_type}_{HEAD}"].append(entry)
    return {name: tuple(group) for name, group in groups.items()}


def _log_set(title: str, configurations: Sequence[Configuration], keys: KeySpecification) -> None:
    """Log the contents of a file; the wording leaves room for several files."""
    logger.info(summary.property_counts(f"{title} set 1/1", configurations, keys))
    logger.info(summary.property_counts(f"Total {title} set", configurations, keys))


def _check_densities(sets: Mapping[str, Sequence[Configuration]], settings: DataSettings) -> None:
    """The low-density check of all sets, or a line that it was skipped."""
    if settings.allow_low_density_pbc:
        logger.info("Low-density check of fully periodic structures skipped")
        return
    for split, members in sets.items():
        checks.check_density(
            members,
            split=split,
            max_volume_per_atom=settings.low_density_pbc_max_volume_per_atom,
        )
