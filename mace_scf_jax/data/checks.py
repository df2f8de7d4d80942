"""Checks of whole files against their description, before anything is computed from them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import ase
import numpy as np
from ase.data import chemical_symbols

from mace_scf_jax.boundary import ALLOWED_PBC, BoundaryError, BoundaryMode, check_slab_cell
from mace_scf_jax.boundary import check_pbc as require_allowed_pbc
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.cells import volume
from mace_scf_jax.data.configuration import NEEDS_A_PERIOD
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.properties import ATOM_INPUTS, GRAPH_INPUTS, PROPERTIES, Place
from mace_scf_jax.registry import nearest

logger = logging.getLogger("mace_scf_jax")

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
            f"If the file is not meant to hold it, leave the key out, or write `{name}: none`."
        )


def warn_about_inputs(
    stored: StoredKeys, keys: KeySpecification, file: str, *, charged: bool
) -> None:
    """Tell of inputs of models that no structure of the training file has, or that nobody reads.

    The total charge is zero where there is none. Whatever else stands under the name of an input
    and is not mapped would be read when the model is used, but not in training.

    Args:
        charged: whether the model has charges, and reads their sum.
    """
    key = keys.key_of("total_charge")
    if charged and key is not None and key not in stored["info"]:
        logger.warning(
            "%s: no configuration has a total charge (key %r); all are taken as neutral%s",
            file,
            key,
            _hint(key, stored["info"] - {"total_charge"}, "; if that is not so, map {!r}"),
        )
    for name in (*GRAPH_INPUTS, *ATOM_INPUTS):
        places = [place for place in PROPERTIES[name].places if name in stored[place]]
        if places and name not in keys.names():
            logger.warning(
                "%s: found %r, which is not mapped in 'heads' and is not trained with; map it "
                "(`%s: %s` in %s_keys), or to none",
                *(file, name, name, name, places[0]),
            )


def warn_about_labels_without_meaning(catalogue: Catalogue, file: str) -> None:
    """Tell of labels that are there and weigh nothing because of the periodic directions."""
    open_rows = ~catalogue.pbc.any(axis=1)
    for name in sorted(NEEDS_A_PERIOD):
        count = int((catalogue.present[name] & open_rows).sum())
        if count:
            logger.warning(
                "%s: %s of %d configurations without periodic directions has no meaning and is "
                "not used",
                *(file, name, count),
            )
    periodic = catalogue.present["dipole"] & catalogue.pbc.any(axis=1)
    unused = int((periodic & (catalogue.weights["dipole"] == 0.0).any(axis=1)).sum())
    if unused:
        logger.info(
            "%s: dipoles of %d configurations are not used along their periodic directions, unless "
            "config_dipole_weight says otherwise",
            *(file, unused),
        )


def warn_about_config_types(
    weights: Mapping[str, float], catalogues: Iterable[Catalogue], default: Mapping[str, float]
) -> None:
    """Tell of types in `config_type_weights` that no structure has."""
    known = {str(name) for catalogue in catalogues for name in catalogue.config_type}
    for name in weights:
        if name not in known and name not in default:
            logger.warning(
                "config_type_weights: no configuration has the type %r%s; types that occur: %s",
                *(name, _hint(name, known, "; did you mean {!r}?"), ", ".join(sorted(known))),
            )


def warn_about_untrained_elements(train: Catalogue, valid: Catalogue) -> None:
    """Tell of elements of the validation set that no training structure has."""
    only = set(valid.occurring_elements()) - set(train.occurring_elements())
    if only:
        symbols = ", ".join(chemical_symbols[number] for number in sorted(only))
        logger.warning(
            "%s occurs in validation configurations only: the model knows it, but is never trained "
            "on it, and E0s cannot be measured for it",
            symbols,
        )


def _hint(name: str, known: Iterable[str], text: str) -> str:
    """A text about the nearest known name; empty if none is near."""
    guess = nearest(name, known)
    return "" if guess is None else text.format(guess)


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
    periodic = catalogue.pbc.all(axis=1) & ~catalogue.isolated_atoms()
    for row in np.flatnonzero(periodic).tolist():
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
