"""Checks of whole files against their description, before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ase
import numpy as np

from mace_scf_jax.boundary import ALLOWED_PBC, BoundaryError, BoundaryMode, check_slab_cell
from mace_scf_jax.boundary import check_pbc as require_allowed_pbc
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.cells import volume
from mace_scf_jax.data.configuration import find_value, property_weight
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.properties import Place
from mace_scf_jax.registry import nearest

FITTABLE = frozenset(
    {
        "energy",
        "forces",
        "stress",
        "virials",
        "dipole",
        "polarizability",
        "fermi_level",
        "atomic_multipoles",
        "electrostatic_potentials",
        "rho_fftn",
    }
)
"""Properties that a model can be fitted to."""


StoredKeys = Mapping[Place, set[str]]
"""Names of the keys that structures have in `atoms.info` and `atoms.arrays`."""


def stored_keys(structures: Iterable[ase.Atoms]) -> dict[Place, set[str]]:
    """The keys that structures have; results of an attached calculator count for both places."""
    info: set[str] = set()
    arrays: set[str] = set()
    for atoms in structures:
        results = set() if atoms.calc is None else set(atoms.calc.results)
        info |= set(atoms.info) | results
        arrays |= (set(atoms.arrays) - {"numbers", "positions"}) | results
    return {"info": info, "arrays": arrays}


def check_keys_occur(stored: StoredKeys, keys: KeySpecification, file: str) -> None:
    """Refuse a key that the user mapped and that no structure of the training file has.

    Not checked are keys that were added automatically, `none`, the meaningless `head`, and
    `total_charge: total_charge`, the way to say that everything is neutral.

    Raises:
        DataError: names the nearest key that occurs, and all of them.
    """
    for name, place, key in keys.items():
        optional = name == "head" or name == key == "total_charge"
        if optional or name in keys.completed or keys.key_of(name) is None or key in stored[place]:
            continue
        guess = nearest(key, stored[place])
        raise DataError(
            f"{file}: found no configuration with the key {key!r}, to which {name!r} is mapped in "
            f"{place}_keys; "
            + (f"did you mean {guess!r}? " if guess else "")
            + f"Keys that occur: {', '.join(sorted(stored[place])) or 'none'}. "
            f"Write `{name}: none` if the file is not meant to hold it."
        )


def check_dipole_weights(
    structures: Iterable[ase.Atoms],
    keys: KeySpecification,
    *,
    split: str,
    file: str,
    first_index: int = 0,
) -> None:
    """Refuse a dipole without `config_dipole_weight` of 3 numbers in consecutive structures.

    Raises:
        DataError: names split, file, index and key of the dipole.
    """
    for index, atoms in enumerate(structures, start=first_index):
        if find_value(atoms, keys, "dipole", read_calculator=True) is not None:
            try:
                property_weight(atoms, "dipole", Location(file, index))
            except DataError as error:
                raise DataError(f"{split}: {error} (key {keys.key_of('dipole')!r})") from None


def check_pbc(catalogue: Catalogue, *, method: str, split: str) -> None:
    """Refuse periodic directions and slab cells that the electrostatic method cannot treat.

    Free atoms that only give atomic energies are not checked in the training file, and ``auto``
    accepts all periodic directions.

    Raises:
        DataError: names the directions found and allowed, split, file and index.
    """
    if method not in ALLOWED_PBC:
        raise DataError(
            f"electrostatic_pbc_method: found {method!r}, expected one of {', '.join(ALLOWED_PBC)}"
        )
    not_checked = catalogue.isolated_atoms() & (split == "train")
    for row in np.flatnonzero(~not_checked).tolist():
        try:
            if method != BoundaryMode.AUTO:
                require_allowed_pbc(catalogue.pbc[row], method)
            if method != BoundaryMode.PBC:
                check_slab_cell(catalogue.cell[row], catalogue.pbc[row], method)
        except BoundaryError as error:
            raise DataError(
                f"{split}: {catalogue.location(row)}: {error}; override_pbc_checks skips this check"
            ) from None


def check_density(catalogue: Catalogue, *, split: str, max_volume_per_atom: float) -> None:
    """Refuse fully periodic structures that are mostly vacuum: usually a wrong pbc.

    Raises:
        DataError: names the structure and its volume per atom, or a limit that is not positive.
    """
    if not max_volume_per_atom > 0.0:
        raise DataError(
            f"low_density_pbc_max_volume_per_atom: found {max_volume_per_atom}, expected a "
            "positive volume in Å³"
        )
    for row in np.flatnonzero(catalogue.pbc.all(axis=1)).tolist():
        total, num_atoms = volume(catalogue.cell[row]), int(catalogue.num_atoms[row])
        if total / num_atoms > max_volume_per_atom:
            raise DataError(
                f"{split}, index {row} ({catalogue.location(row)}): found a structure of low "
                f"density with pbc TTT: config_type={catalogue.config_type[row]}, "
                f"volume={total:.1f}, num_atoms={num_atoms}, "
                f"volume_per_atom={total / num_atoms:.1f}, limit={max_volume_per_atom:g} (Å³); "
                "allow_low_density_pbc skips this check"
            )


def check_something_to_fit(catalogue: Catalogue, file: str) -> None:
    """Refuse a file in which no configuration has anything to compare a model with.

    Raises:
        DataError: names the properties looked for.
    """
    if not any(catalogue.present[name].any() for name in FITTABLE):
        raise DataError(
            f"{file}: found no reference values under the mapped keys; expected at least one of "
            f"{', '.join(sorted(FITTABLE))}"
        )
