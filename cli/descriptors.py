"""``mace-scf-jax descriptors``: the raw features of the atoms of structures, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from mace_scf_jax.backbones.chebyshev.options import DescriptorOptions
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.reading import read_located
from mace_scf_jax.late import import_all
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.training.config.reading import read_config_file
from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import positive

if TYPE_CHECKING:
    from mace_scf_jax.backbones import Descriptor
    from mace_scf_jax.predict.descriptors import describe, descriptor_of
    from mace_scf_jax.predict.model import load_model

WHEN_INTERRUPTED = "interrupted; no output was written"
CONFIGURATIONS = (".yaml", ".yml")
DESCRIPTION = """\
Compute the descriptor of every atom and write the raw features, before any normalisation, as a
NumPy archive: features [atoms, F] of all structures one after the other; structure [atoms], the
position of the structure of each atom; numbers [atoms], atomic numbers; names [F] of the features;
species in the order of their weights; descriptor, its parameters as JSON."""


def run(words: Sequence[str]) -> int:
    """Do as the words after ``mace-scf-jax descriptors`` say; returns the exit status."""
    given = _parser().parse_args(words)
    import_all(__name__, __file__)
    signs = work.begin()
    read = read_located(given.structures)
    configurations = [
        from_atoms(atoms, location=location)
        for atoms, location in zip(read.atoms, read.locations, strict=True)
    ]
    if given.source.suffix in CONFIGURATIONS:
        descriptor = _configured(given.source, configurations)
    else:
        descriptor = descriptor_of(load_model(given.source).settings.backbone)
    with signs.bar("structures", len(configurations)) as bar:
        described = describe(
            descriptor, configurations, batch_size=given.batch_size, notify=bar.update
        )
    described.save(given.output)
    print(
        f"Wrote {descriptor.size} features of {len(described.features)} atoms in "
        f"{len(configurations)} structures to {given.output} (species "
        f"{', '.join(descriptor.symbols)})"
    )
    return 0


def _configured(path: Path, configurations: Sequence[Configuration]) -> Descriptor:
    """The descriptor of a configuration of training; its species by default those of structures.

    Raises:
        ConfigurationError: there is none, or it makes no sense.
    """
    block = read_config_file(path).get("descriptor")
    if not isinstance(block, dict):
        raise ConfigurationError(
            f"{path}: expected the option 'descriptor' with rad_order, rad_cutoff, ang_order and "
            "ang_cutoff, found none"
        )
    try:
        options = DescriptorOptions(**block)
    except ConfigurationError as error:
        raise error.within("descriptor") from None
    elements = sorted({int(z) for entry in configurations for z in entry.atomic_numbers})
    descriptor = options.of_elements(tuple(elements))
    if missing := [z for z in elements if z not in descriptor.species]:
        raise ConfigurationError(
            f"{path}, descriptor, species: expected all elements of the structures, found no "
            f"{', '.join(chemical_symbols[z] for z in missing)} in {', '.join(descriptor.symbols)}"
        )
    return descriptor


def _archive(text: str) -> Path:
    """The path of a NumPy archive."""
    path = Path(text)
    if path.suffix != ".npz":
        raise argparse.ArgumentTypeError(f"expected a .npz file, found {text!r}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax descriptors", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="MODEL|CONFIG.yaml",
        help="model file with a descriptor backbone, or a configuration with a descriptor",
    )
    parser.add_argument("structures", metavar="FILE", help="structures (any format of ASE)")
    parser.add_argument(
        "-o", "--output", type=_archive, required=True, metavar="OUT.npz", help="(required)"
    )
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=64,
        metavar="N",
        help="structures computed together (default: 64)",
    )
    return parser
