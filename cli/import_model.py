"""``mace-scf-jax import``: make a model file from a PyTorch model, or from potentials of ænet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from mace_scf_jax.data.reading import read_atoms
from mace_scf_jax.late import import_all
from mace_scf_jax.options.values import parse_literal
from mace_scf_jax.public_models import RELEASES, model_file, name_and_head, obtain
from mace_scf_jax.public_models.on_disk import HEAD_MARK
from mace_scf_jax.registry import unknown_name
from mace_scf_jax_cli import work

if TYPE_CHECKING:
    from mace_scf_jax.aenet import EnergyDeviation, compare_with_formulas, import_potential
    from mace_scf_jax.aenet.files import SUFFIXES
    from mace_scf_jax.progress import Signs
    from mace_scf_jax.pytorch import Parity, compare_with_torch, import_model

WHEN_INTERRUPTED = "interrupted; a model file that was announced is complete"
EXIT_DEVIATION = 1
DEFAULT_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def run(words: Sequence[str]) -> int:
    """Import as the words after ``mace-scf-jax import`` say.

    Returns:
        0, or 1 if predictions deviate from those of the source by more than the tolerance.
    """
    given = _parser().parse_args(words)
    if given.list:
        _show_releases()
        return 0
    import_all(__name__, __file__)
    public = _public_model(given)
    sources, output = _paths(given, public)
    signs = work.begin()
    if public is not None:
        sources = [_downloaded(public, signs)]
    _check_paths(sources, output)
    structures = read_atoms(given.check) if given.check is not None else []
    is_of_aenet = sources[0].suffix in SUFFIXES
    if is_of_aenet:
        if given.options:
            raise ValueError("--options: files of ænet tell everything, expected none")
        if given.head is not None:
            raise ValueError("--head: potentials of ænet have no heads, expected none")
        model = import_potential(sources, dtype=given.dtype)
    else:
        model = import_model(
            sources[0],
            options=given.options,
            dtype=given.dtype,
            trust=given.trust,
            head=given.head,
        )
    model.save(output)
    names = ", ".join(map(str, sources))
    print(f"Imported {model.settings.family} from {names} to {output}")
    if public is not None and output == model_file(public, given.head):
        known_as = public if given.head is None else f"{public}{HEAD_MARK}{given.head}"
        print(f"Everywhere in place of a model file: {known_as}")
    if given.check is None:
        return 0
    tolerance = given.tolerance or DEFAULT_TOLERANCE[given.dtype]
    if is_of_aenet:
        found = compare_with_formulas(model, sources, structures)
        _show_energies(found, tolerance)
    else:
        found = compare_with_torch(model, sources[0], structures)
        _show(found, tolerance)
    return 0 if all(entry.passes(tolerance) for entry in found) else EXIT_DEVIATION


def _public_model(given: argparse.Namespace) -> str | None:
    """The release that is named, if one is; a head behind its name becomes that of ``--head``.

    Raises:
        ValueError: there are two heads.
    """
    name, head = name_and_head((given.paths or [""])[0])
    if name not in RELEASES:
        return None
    if head is not None and given.head not in (None, head):
        raise ValueError(f"--head: found {given.head!r} beside {head!r} in {given.paths[0]}")
    given.head = head or given.head
    return name


def _paths(given: argparse.Namespace, public: str | None) -> tuple[list[Path], Path]:
    """Sources and output.

    Args:
        public: name of the release that is imported; None for files.

    Raises:
        ValueError: something is missing.
    """
    name, *further = given.paths or [""]
    if public is not None:
        if not given.trust:
            raise ValueError(
                f"{name}: files of public models are whole PyTorch modules, and to read one runs "
                "the code that is in it. Give --trust if you trust its makers"
            )
        if len(further) > 1:
            raise ValueError(f"{name}: expected one output behind a name, found {len(further)}")
        return [], Path(further[0]) if further else model_file(public, given.head)
    if not further:
        if name and not Path(name).exists() and not Path(name).suffix:
            raise ValueError(unknown_name("public model", name_and_head(name)[0], RELEASES))
        raise ValueError(
            "expected SOURCE and OUT, or the name of a public model; --list names these"
        )
    return [Path(source) for source in given.paths[:-1]], Path(given.paths[-1])


def _downloaded(name: str, signs: Signs) -> Path:
    """The file of a public model."""
    with signs.bar("megabytes") as bar:

        def notify(done: int, total: int | None) -> None:
            bar.update(done >> 20, None if total is None else total >> 20)

        found = obtain(name, notify=notify)
    if found.is_new:
        whose = "as its makers published" if found.is_published else "recorded: none is published"
        print(f"SHA-256 {found.sha256}, {whose}")
    return found.path


def _show_releases() -> None:
    table = Table(box=ASCII, title="Public models", title_justify="left")
    for heading in ("name", "what it is for", "licence", "to cite"):
        table.add_column(heading, no_wrap=True)
    for name, release in RELEASES.items():
        table.add_row(name, release.about, release.licence.name, release.citation)
    Console(markup=False, width=140).print(table)


def _check_paths(sources: Sequence[Path], output: Path) -> None:
    """Refuse an output that is a source or named like one, and sources that do not go together.

    Raises:
        ValueError: says which.
    """
    for source in sources:
        if output.exists() and source.exists() and output.samefile(source):
            raise ValueError(f"{output}: would replace the source; choose another name")
    if output.suffix in SUFFIXES:
        raise ValueError(
            f"{output}: expected the name of a model file behind those of the potentials, found "
            "one of a potential of ænet"
        )
    if len(sources) > 1:
        for source in sources:
            if source.suffix not in SUFFIXES:
                raise ValueError(
                    f"{source}: expected one source, or several files {' and '.join(SUFFIXES)} of "
                    f"ænet, found {len(sources)} sources"
                )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax import",
        usage="mace-scf-jax import SOURCE [SOURCE …] OUT [options]\n"
        "       mace-scf-jax import NAME [OUT] --trust [options]\n"
        "       mace-scf-jax import --list",
        description="Make a model file from a PyTorch model of mace-torch or MACE_SCF, or from "
        "the potentials of ænet.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        metavar="SOURCE",
        nargs="*",
        help="state dict and configuration (.npz, needs no PyTorch); or a file of torch.save "
        "(.model, .pt, of ænet-python too); or the potentials of all elements of ænet (.nn.ascii, "
        "or binary .nn); or the name of a public model, of one of several heads NAME:HEAD. Last "
        "the model file to write, OUT, which a name can do without: the model is then known by "
        "that name",
    )
    parser.add_argument("--list", action="store_true", help="list public models, and stop")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="read a whole PyTorch module, which runs code that is in the file: only from people "
        "you trust",
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="structures (any format of ASE) on which predictions are compared with PyTorch (MACE, "
        "ScaleShiftMACE, MACELES, PolarMACE), or energies with the formulas of ænet, summed over "
        "pairs of neighbours",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest deviation in eV/atom and eV/Å (default: 1e-9, in float32 1e-4)",
    )
    parser.add_argument(
        "--head",
        metavar="NAME",
        help="of a model that was trained on several levels of theory, the one that is imported "
        "(default: the only one, or the one called default)",
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
    for heading in ("energy / eV", "forces / eV/Å", "stress / eV/Å³", "largest force", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for parity in parities:
        table.add_row(
            parity.formula,
            f"{parity.energy:.1e}",
            f"{parity.forces:.1e}",
            "-" if parity.stress is None else f"{parity.stress:.1e}",
            f"{parity.largest_force:.3g}",
            "ok" if parity.passes(tolerance) else "EXCEEDED",
        )
    Console(markup=False, width=120).print(table)


def _show_energies(found: Sequence[EnergyDeviation], tolerance: float) -> None:
    table = Table(box=ASCII, title="Deviations from the formulas of ænet", title_justify="left")
    table.add_column("structure", no_wrap=True)
    for heading in ("energy / eV", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in found:
        result = "ok" if entry.passes(tolerance) else "EXCEEDED"
        table.add_row(entry.formula, f"{entry.energy:.1e}", result)
    Console(markup=False, width=120).print(table)
