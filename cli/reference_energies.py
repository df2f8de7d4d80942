"""``mace-scf-jax reference-energies``: energies of elements from labelled structures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.data.atomic_energies import fit_atomic_energies
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.checks import check_keys_occur, stored_keys
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import read_located, to_configurations
from mace_scf_jax.data.reference_energies import Compounds, ReferenceEnergies, Regression
from mace_scf_jax.files import write_whole
from mace_scf_jax.options.values import parse_literal

WHEN_INTERRUPTED = "interrupted; no output was written"
DESCRIPTION = """\
Fit the energies of the elements to total energies, and write them to a file for the option E0s of a
training (E0s: FILE.json). By default all structures are fitted together (linear regression). With
--compounds the energies are those by which each compound, at its lowest energy among the
structures, is reproduced: the rest of an energy is then the energy of formation from them."""


def run(words: Sequence[str]) -> int:
    """Fit as the words after ``mace-scf-jax reference-energies`` say; returns the exit status."""
    given = _parser().parse_args(words)
    output = Path(given.output)
    if output.suffix != ".json":
        raise DataError(f"{output}: expected a name that ends in .json")
    if output.exists() and not given.overwrite:
        raise DataError(f"{output}: exists already; replace it with --overwrite")
    method = _method(given)
    keys = KeySpecification(info_keys={"energy": given.energy_key}, arrays_keys={})
    structures = [entry for file in given.structures for entry in _read(file, keys)]
    found = fit_atomic_energies(Catalogue.of(structures), method)
    _show(found, structures)
    energies = {chemical_symbols[number]: energy for number, energy in found.energies.items()}
    with write_whole(output) as partial:
        partial.write_text(json.dumps(energies, indent=2) + "\n")
    print(f"Wrote {output}")
    return 0


def _method(given: argparse.Namespace) -> Regression | Compounds:
    """How to find the energies.

    Raises:
        ConfigurationError: a value makes no sense, or belongs to the other method.
    """
    values: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("compounds", "fixed", "subset_size", "subset_fraction", "seed")
        if getattr(given, name) is not None
    }
    return Compounds(**values) if "compounds" in values else Regression(**values)


def _read(file: str, keys: KeySpecification) -> list[Configuration]:
    """The structures of a file, some of which must have an energy."""
    read = read_located(file)
    check_keys_occur(stored_keys(read.atoms), keys, file)
    return to_configurations(read, keys, multipoles_max_l=0)


def _show(found: ReferenceEnergies, structures: Sequence[Configuration]) -> None:
    """Print the energies, and how well they are determined."""
    console = Console(markup=False, width=120)
    table = Table("element", "energy/eV", "", box=ASCII)
    for number, energy in found.energies.items():
        note = "fixed" if number in found.fixed else ""
        table.add_row(chemical_symbols[number], f"{energy:.9f}", note)
    console.print(table)
    labelled = [entry for entry in structures if entry.weights["energy"] > 0.0]
    for chosen in found.compounds:
        print(
            f"{chosen.compound}: {chosen.energy:.9f} eV, the lowest of {chosen.candidates} "
            f"({labelled[chosen.sample].location})"
        )
    values = ", ".join(f"{value:.4g}" for value in found.singular_values)
    print(
        f"{found.samples} equations from {found.total} structures, rank {found.rank}, singular "
        f"values {values}\n"
        f"Residual sum of squares {found.residual_sum_of_squares:.6g} eV², RMSE of the total "
        f"energies {found.rmse:.6g} eV"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax reference-energies", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument(
        "structures", nargs="+", metavar="FILE", help="labelled structures (.xyz, .xsf)"
    )
    parser.add_argument(
        "--compounds",
        nargs="+",
        metavar="FORMULA",
        help="such as TiO2 O2; multiples count too, Ti4O8 is TiO2",
    )
    parser.add_argument(
        "--fixed",
        type=parse_literal,
        metavar="MAPPING",
        help="energies that are given, such as '{O: -432.5}'",
    )
    parser.add_argument(
        "--subset_size", type=int, metavar="N", help="fit to N structures drawn at random"
    )
    parser.add_argument(
        "--subset_fraction", type=float, metavar="X", help="fit to this share of the structures"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the draw (default: 1)")
    parser.add_argument(
        "--energy_key",
        default="REF_energy",
        metavar="KEY",
        help="key of the energies in the files (default: REF_energy)",
    )
    parser.add_argument(
        "--output", default="E0s.json", metavar="FILE.json", help="default: E0s.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser
