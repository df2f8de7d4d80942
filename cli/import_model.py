"""``mace-scf-jax import``: make a model file from a PyTorch model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.data.reading import read_atoms
from mace_scf_jax.options.values import parse_literal
from mace_scf_jax.pytorch import Parity, compare_with_torch, import_model

WHEN_INTERRUPTED = "interrupted; a model file that was announced is complete"
EXIT_DEVIATION = 1
DEFAULT_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def run(words: Sequence[str]) -> int:
    """Import as the words after ``mace-scf-jax import`` say.

    Returns:
        0, or 1 if predictions deviate from those of PyTorch by more than the tolerance.
    """
    given = _parser().parse_args(words)
    source, output = Path(given.source), Path(given.output)
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"{output}: would replace the PyTorch model; choose another name")
    structures = read_atoms(given.check) if given.check is not None else []
    model = import_model(source, options=given.options, dtype=given.dtype)
    model.save(output)
    print(f"Imported {model.settings.family} from {source} to {output}")
    if given.check is None:
        return 0
    parities = compare_with_torch(model, source, structures)
    tolerance = given.tolerance or DEFAULT_TOLERANCE[given.dtype]
    _show(parities, tolerance)
    return 0 if all(parity.passes(tolerance) for parity in parities) else EXIT_DEVIATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax import",
        description="Make a model file from a PyTorch model of mace-torch or MACE_SCF.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="state dict and configuration (.npz, needs no PyTorch), or a file of torch.save "
        "(.model, .pt; a pickle, which runs the code in it: only from people you trust)",
    )
    parser.add_argument("output", metavar="OUT", help="model file to write")
    parser.add_argument(
        "--check",
        metavar="FILE.xyz",
        help="structures on which predictions are compared with PyTorch (MACE, ScaleShiftMACE)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest deviation in eV/atom and eV/Å (default: 1e-9, in float32 1e-4)",
    )
    parser.add_argument(
        "--options",
        type=parse_literal,
        default={},
        metavar="MAPPING",
        help="options that the source does not tell, such as '{pbc_handling: pbc}'",
    )
    parser.add_argument(
        "--dtype", choices=tuple(DEFAULT_TOLERANCE), default="float64", help="(default: float64)"
    )
    return parser


def _show(parities: Sequence[Parity], tolerance: float) -> None:
    table = Table(box=ASCII, title="Deviations from PyTorch", title_justify="left")
    table.add_column("structure", no_wrap=True)
    for heading in ("energy / eV", "forces / eV/Å", "largest force", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for parity in parities:
        table.add_row(
            parity.formula,
            f"{parity.energy:.1e}",
            f"{parity.forces:.1e}",
            f"{parity.largest_force:.3g}",
            "ok" if parity.passes(tolerance) else "EXCEEDED",
        )
    Console(markup=False, width=120).print(table)
