"""Training, validation and test sets from files, checked and reported."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

from mace_scf_jax.boundary import ALLOWED_PBC
from mace_scf_jax.data import checks, selection
from mace_scf_jax.data.atomic_energies import AtomicEnergySetting, atomic_energies
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.cells import CellRule
from mace_scf_jax.data.configuration import DEFAULT_CONFIG_TYPE, Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import (
    ReadStructures,
    is_stored,
    read_located,
    to_configurations,
    warn_about_adjusted_cells,
    warn_about_missing_labels,
)
from mace_scf_jax.data.replay import Replay
from mace_scf_jax.data.sets import ConfigurationSet, ConfigurationsInMemory
from mace_scf_jax.data.statistics import label_table
from mace_scf_jax.data.stored_set import open_stored

logger = logging.getLogger("mace_scf_jax")

TEST = "test"
"""Name of test configurations that name no type."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which files to load and how; the names are those of the training options.

    A file is extended XYZ or XSF, a pattern for several (``xsf/*.xsf``), a folder of XSF files, or
    what `mace-scf-jax preprocess` wrote: a folder or a shard.
    """

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
    max_energy: float | None = None
    """Largest interaction energy of training and validation configurations, eV/atom."""
    max_forces: float | None = None
    """Largest norm of the force on an atom in them, eV/Å."""
    config_type_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    electrostatic_pbc_method: str | None = "mixed_periodic"
    """Decides which periodic directions are refused; None where there are no charges."""
    override_pbc_checks: bool = False
    allow_low_density_pbc: bool = False
    low_density_pbc_max_volume_per_atom: float = 100.0
    tells_energies: bool = True
    """Whether the energies of isolated atoms are logged: where they are not changed later."""
    less: Callable[[Sequence[Configuration]], list[Configuration]] | None = None
    """What takes off labels what is not to be learned; None for nothing."""
    replay: Replay | None = None
    """Structures of a head of their own, a `valid_fraction` of which is validated on."""

    def files(self) -> dict[str, str]:
        """The given files by split: train, valid, test."""
        named = {"train": self.train_file, "valid": self.valid_file, "test": self.test_file}
        return {split: str(file) for split, file in named.items() if file is not None}

    def __post_init__(self) -> None:
        if self.multipoles_max_l < 0:
            raise DataError(
                f"atomic_multipoles_max_l: found {self.multipoles_max_l}, expected 0 or more"
            )
        if self.electrostatic_pbc_method not in (None, *ALLOWED_PBC):
            raise DataError(
                f"electrostatic_pbc_method: found {self.electrostatic_pbc_method!r}, expected one "
                f"of {', '.join(ALLOWED_PBC)}"
            )
        if self.max_energy is not None and not np.isfinite(self.max_energy):
            raise DataError(f"max_energy: found {self.max_energy}, expected a finite number")
        if self.max_forces is not None and not 0.0 < self.max_forces < np.inf:
            raise DataError(f"max_forces: found {self.max_forces}, expected a positive number")
        for name, weight in self.config_type_weights.items():
            if not (np.isfinite(weight) and weight >= 0.0):
                raise DataError(
                    f"config_type_weights, {name}: found {weight}, expected a finite number ≥ 0"
                )


@dataclasses.dataclass(frozen=True)
class DataSets:
    """What a training run reads from its files."""

    train: ConfigurationSet
    valid: ConfigurationSet
    tests: Mapping[str, ConfigurationSet]
    """Test configurations by their type (`test` where they name none), in order of appearance."""
    elements: tuple[int, ...]
    """Atomic numbers of the training and validation sets, ascending."""
    atomic_energies: Float[np.ndarray, "*heads elements"]
    """Energies of free atoms, eV; with several heads a row for each."""
    keys: KeySpecification
    has_isolated_atoms: tuple[bool, ...] = (False,)
    """Whether the atomic energies, of each head, are those of isolated atoms in the training file.
    """
    valid_indices: tuple[int, ...] = ()
    """Positions of a random validation set among the configurations of the training file that are
    not isolated atoms; empty if the validation set has its own file."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads; empty for a single one."""
        return tuple(head.name for head in self.keys.heads)

    def atomic_energies_of(
        self, members: ConfigurationSet
    ) -> Float[np.ndarray, "*configurations elements"]:
        """Energies of free atoms for a set, with several heads a row for each configuration."""
        places = head_places(members)
        return self.atomic_energies if places is None else self.atomic_energies[places]


def load_datasets(settings: DataSettings) -> DataSets:
    """Read, check and split the data of a training run, and log what was found.

    No file is written, so that data which are refused leave nothing behind.

    Raises:
        DataError: if a file or anything in it cannot be used.
    """
    files = settings.files()
    sets = _read(files, settings)
    check_sets(sets, files, settings)
    isolated = sets["train"].catalogue.isolated_atoms()
    train = sets["train"].take(np.flatnonzero(~isolated))
    if len(train) == 0:
        raise DataError(f"{settings.train_file}: found only isolated atoms")
    free_atoms = sets["train"].catalogue.take(np.flatnonzero(isolated))
    if "valid" in sets:
        kept = _rows_within_limits(
            {"Training": train, "Validation": sets["valid"]}, free_atoms, settings
        )
        train, valid = train.take(kept["Training"]), sets["valid"].take(kept["Validation"])
        valid_indices = ()
    else:
        kept = _rows_within_limits({"Training": train}, free_atoms, settings)
        train, valid, rows = _split(train.take(kept["Training"]), settings)
        valid_indices = kept["Training"][rows].tolist()
    if settings.replay is not None:
        replayed = _replayed(settings.replay, settings)
        parts = selection.random_split(
            len(replayed), fraction=settings.valid_fraction, seed=settings.valid_set_seed
        )
        train, valid = (
            ConfigurationsInMemory([*members, *replayed.take(rows)])
            for members, rows in zip((train, valid), parts, strict=True)
        )
    tests = _of_each_head(valid, settings)
    if "test" in sets:
        tests |= _group(sets["test"], settings)
    shown = {"train": train, "valid": valid, **tests}
    logger.info(label_table({name: members.catalogue for name, members in shown.items()}))

    _check_densities(
        {
            "train": train,
            "valid": valid,
            **{f"test:{name}": group for name, group in tests.items()},
        },
        settings,
    )
    elements = tuple(
        sorted({*train.catalogue.occurring_elements(), *valid.catalogue.occurring_elements()})
    )
    checks.warn_about_untrained_elements(train.catalogue, valid.catalogue)
    checks.warn_about_config_types(
        settings.config_type_weights,
        [members.catalogue for members in sets.values()],
        default={DEFAULT_CONFIG_TYPE: 1.0},
    )
    alone = sets["train"].take(np.flatnonzero(isolated))
    energies = _energies_of_free_atoms(elements, train, alone, settings)
    return DataSets(
        train=train,
        valid=valid,
        tests=tests,
        elements=elements,
        atomic_energies=energies,
        keys=settings.keys,
        has_isolated_atoms=_heads_with(alone, settings),
        valid_indices=tuple(valid_indices),
    )


def check_sets(
    sets: Mapping[str, ConfigurationSet], files: Mapping[str, str], settings: DataSettings
) -> None:
    """Check the whole set of each split, and warn about what is probably not meant.

    Raises:
        DataError: if a set cannot be used.
    """
    for split, members in sets.items():
        catalogue = members.catalogue
        method = settings.electrostatic_pbc_method
        if method is not None and not settings.override_pbc_checks:
            checks.check_pbc(catalogue, method=method, split=split)
        present = [name for name, rows in catalogue.present.items() if rows.any()]
        warn_about_missing_labels(present, settings.keys, files[split])
        open_cells = catalogue.cell_rule[~catalogue.pbc.any(axis=1)]
        warn_about_adjusted_cells([CellRule(rule) for rule in open_cells], files[split])
        checks.warn_about_labels_without_meaning(catalogue, files[split])
        checks.check_something_to_fit(catalogue, files[split])


def _read(files: Mapping[str, str], settings: DataSettings) -> dict[str, ConfigurationSet]:
    """The sets of all files; those of structures are checked before any is converted."""
    structures = {split: read_located(file) for split, file in files.items() if not is_stored(file)}
    if "train" in structures:
        stored = checks.stored_keys(structures["train"].atoms)
        checks.check_keys_occur(stored, settings.keys, files["train"])
        charged = settings.electrostatic_pbc_method is not None
        checks.warn_about_inputs(stored, settings.keys, files["train"], charged=charged)
    return {
        split: _converted(structures[split], settings)
        if split in structures
        else _open(file, split, settings)
        for split, file in files.items()
    }


def _converted(structures: ReadStructures, settings: DataSettings) -> ConfigurationsInMemory:
    """The configurations of structures."""
    found = to_configurations(
        structures,
        settings.keys,
        multipoles_max_l=settings.multipoles_max_l,
        config_type_weights=settings.config_type_weights,
    )
    return ConfigurationsInMemory(found if settings.less is None else settings.less(found))


def _replayed(replay: Replay, settings: DataSettings) -> ConfigurationsInMemory:
    """The structures to replay, without free atoms, and within the limits."""
    members = _converted(
        replay.read(
            settings.keys,
            seed=settings.valid_set_seed,
            charged=settings.electrostatic_pbc_method is not None,
        ),
        settings,
    )
    check_sets({"replay": members}, {"replay": str(replay.file)}, settings)
    members = members.take(np.flatnonzero(~members.catalogue.isolated_atoms()))
    kept = _rows_within_limits({"Replay": members}, members.catalogue, settings)
    return members.take(kept["Replay"])


def _open(file: str, split: str, settings: DataSettings) -> ConfigurationSet:
    """A preprocessed set, if it holds what the settings ask for."""
    if settings.keys.heads:
        raise DataError(f"{file}: preprocessed data have one head, expected files of structures")
    if settings.less is not None:
        raise DataError(
            f"{file}: found preprocessed data, whose labels have dispersion; with the option "
            "'dispersion' expected files of structures"
        )
    stored = open_stored(file, split=split, config_type_weights=settings.config_type_weights)
    stored.description.check_labels(settings.keys, settings.multipoles_max_l, file=file)
    return stored


def head_places(members: ConfigurationSet) -> Int[np.ndarray, "configurations"] | None:
    """Place of the head of every configuration; None where there is a single one."""
    if len(members) == 0 or members[0].head is None:
        return None
    return np.array([entry.head for entry in members], dtype=np.int64)


def _heads_with(members: ConfigurationSet, settings: DataSettings) -> tuple[bool, ...]:
    """Whether some of the configurations are of each head; of a single one, whether any are."""
    places = head_places(members)
    if not settings.keys.heads or places is None:
        return (len(members) > 0,) * max(len(settings.keys.heads), 1)
    return tuple(bool(np.any(places == place)) for place in range(len(settings.keys.heads)))


def _of_each_head(valid: ConfigurationSet, settings: DataSettings) -> dict[str, ConfigurationSet]:
    """Validation structures of every head, which are evaluated one by one at the end."""
    places, found = head_places(valid), {}
    for place, head in enumerate(settings.keys.heads):
        rows = np.flatnonzero(places == place)
        if len(rows):
            found[f"valid_{head.name}"] = valid.take(rows)
        else:
            logger.warning("heads, %s: no validation structure belongs to this head", head.name)
    return found


def _energies_of_free_atoms(
    elements: tuple[int, ...],
    train: ConfigurationSet,
    free_atoms: ConfigurationSet,
    settings: DataSettings,
) -> Float[np.ndarray, "*heads elements"]:
    """Atomic energies, of every head on its own structures."""
    symbols = [chemical_symbols[number] for number in elements]
    if not settings.keys.heads:
        energies = atomic_energies(
            settings.E0s,
            elements=elements,
            train=train.catalogue,
            isolated_atoms=free_atoms.catalogue,
        )
        if settings.tells_energies:
            _tell_energies(symbols, energies)
        return energies
    rows = []
    for place, head in enumerate(settings.keys.heads):
        own, atoms = (
            members.catalogue.take(np.flatnonzero(head_places(members) == place))
            for members in (train, free_atoms)
        )
        if len(own) == 0:
            raise DataError(f"heads, {head.name}: found no training structure of this head")
        occurring = own.occurring_elements()
        known = atomic_energies(
            settings.E0s if head.E0s is None else head.E0s,
            elements=occurring,
            train=own,
            isolated_atoms=atoms,
        )
        row = np.zeros(len(elements))
        row[[elements.index(number) for number in occurring]] = known
        if settings.tells_energies:
            _tell_energies(symbols, row, of=f" of the head {head.name}")
        absent = [symbol for symbol, z in zip(symbols, elements, strict=True) if z not in occurring]
        if absent:
            logger.warning(
                "heads, %s: no training structure of this head has %s, with which it is not to be "
                "used",
                head.name,
                ", ".join(absent),
            )
        rows.append(row)
    return np.array(rows)


def _tell_energies(symbols: Sequence[str], energies: np.ndarray, of: str = "") -> None:
    by_element = zip(symbols, energies, strict=True)
    told = ", ".join(f"{symbol} {energy:.4f}" for symbol, energy in by_element)
    logger.info("Energies of isolated atoms%s / eV: %s", of, told)


def _rows_within_limits(
    sets: Mapping[str, ConfigurationSet], free_atoms: Catalogue, settings: DataSettings
) -> dict[str, np.ndarray]:
    """Positions of the configurations within `max_energy` and `max_forces`, by title of the set.

    The atomic energies "average" are those of the set "Training".
    """
    within: dict[str, dict[str, np.ndarray]] = {title: {} for title in sets}
    if settings.max_energy is not None and settings.keys.heads:
        raise DataError("max_energy: found beside several heads, expected one or the other")
    if settings.max_energy is not None:
        elements = sorted(
            {z for part in sets.values() for z in part.catalogue.occurring_elements()}
        )
        energies = atomic_energies(
            settings.E0s,
            elements=elements,
            train=sets["Training"].catalogue,
            isolated_atoms=free_atoms,
        )
        words = f"with an interaction energy above max_energy = {settings.max_energy:g} eV/atom"
        for title, members in sets.items():
            within[title][words] = selection.within_energy(
                members.catalogue, settings.max_energy, atomic_energies=energies, elements=elements
            )
    if settings.max_forces is not None:
        words = f"with a force above max_forces = {settings.max_forces:g} eV/Å"
        for title, members in sets.items():
            within[title][words] = selection.within_forces(members, settings.max_forces)
    rows = {}
    for title, members in sets.items():
        rows[title] = np.arange(len(members))
        if within[title]:
            kept, line = selection.within_all(title, within[title])
            logger.info(line)
            rows[title] = np.flatnonzero(kept)
    return rows


def _split(
    train: ConfigurationSet, settings: DataSettings
) -> tuple[ConfigurationSet, ConfigurationSet, list[int]]:
    """A random part of the training configurations for validation, and its indices."""
    train_indices, valid_indices = selection.random_split(
        len(train), fraction=settings.valid_fraction, seed=settings.valid_set_seed
    )
    logger.info(
        selection.describe_split(
            valid_indices,
            fraction=settings.valid_fraction,
            seed=settings.valid_set_seed,
            work_dir=Path(settings.work_dir),
        )
    )
    return train.take(train_indices), train.take(valid_indices), valid_indices


def _group(tests: ConfigurationSet, settings: DataSettings) -> dict[str, ConfigurationSet]:
    """Test configurations by config type, and by head, in order of first appearance."""
    types = [_name_of_tests(name) for name in tests.catalogue.config_type]
    places = head_places(tests)
    if places is not None:
        heads = [settings.keys.heads[place].name for place in places]
        types = [f"{name}_{head}" for name, head in zip(types, heads, strict=True)]
    names = np.array(types, dtype=object)
    return {name: tests.take(np.flatnonzero(names == name)) for name in dict.fromkeys(types)}


def _name_of_tests(config_type: str) -> str:
    """What a set of test configurations is called; never like the sets of training."""
    if config_type == DEFAULT_CONFIG_TYPE:
        return TEST
    return f"{TEST}_{config_type}" if config_type in ("train", "valid", TEST) else config_type


def _check_densities(sets: Mapping[str, ConfigurationSet], settings: DataSettings) -> None:
    """The low-density check of all sets, or a line that it was skipped."""
    if settings.allow_low_density_pbc:
        logger.info("Low-density check of fully periodic structures skipped")
        return
    for split, members in sets.items():
        checks.check_density(
            members.catalogue,
            split=split,
            max_volume_per_atom=settings.low_density_pbc_max_volume_per_atom,
        )
