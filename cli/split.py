"""``mace-scf-jax split``: structures divided at random into those to train, validate, test."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ase.io

from mace_scf_jax.data.ase_formats import EXTENDED_XYZ
from mace_scf_jax.data.configuration import ISOLATED_ATOM
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reading import FilePart, parts_of
from mace_scf_jax.files import write_whole
from mace_scf_jax.late import import_all

if TYPE_CHECKING:
    from mace_scf_jax.data.selection import three_way_split

WHEN_INTERRUPTED = "interrupted; a file that was announced is complete"
ONE_BY_ONE = 1
"""Bytes of the parts in which extended XYZ is read."""
DESCRIPTION = """\
Divide labelled structures at random into train.xyz, valid.xyz and test.xyz. The seed decides, so
that the same command gives the same files again. Structures keep their order, and their text where
they are extended XYZ; of other formats what ASE reads is written. Structures with
config_type=IsolatedAtom are no sample of anything: all of them are for training."""


def run(words: Sequence[str]) -> int:
    """Divide as the words after ``mace-scf-jax split`` say; returns the exit status."""
    given = _parser().parse_args(words)
    import_all(__name__, __file__)
    folder = Path(given.output)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder, found a file")
    structures = [entry for file in given.structures for entry in _texts(file)]
    isolated = [index for index, (_, is_isolated) in enumerate(structures) if is_isolated]
    sampled = [index for index, (_, is_isolated) in enumerate(structures) if not is_isolated]
    parts = three_way_split(
        sampled, valid_fraction=given.valid, test_fraction=given.test, seed=given.seed
    )
    parts["train"] = sorted([*isolated, *parts["train"]])
    files = {folder / f"{name}.xyz": members for name, members in parts.items() if members}
    for path in files:
        if path.exists() and not given.overwrite:
            raise DataError(f"{path}: exists already; replace it with --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for path, members in files.items():
        with write_whole(path) as partial:
            partial.write_bytes(b"".join(structures[index][0] for index in members))
        print(f"Wrote {len(members)} structures to {path}")
    return 0


def _texts(path: str) -> Iterator[tuple[bytes, bool]]:
    """Extended XYZ of every structure, and whether it is an isolated atom."""
    for part in parts_of(path, largest=ONE_BY_ONE):
        for atoms in part.read().atoms:
            text = _as_written(part) if isinstance(part, FilePart) else _written(atoms)
            yield text, atoms.info.get("config_type") == ISOLATED_ATOM


def _as_written(part: FilePart) -> bytes:
    with Path(part.file).open("rb") as file:
        file.seek(part.first_byte)
        text = file.read(part.end_byte - part.first_byte)
    return text if text.endswith(b"\n") else text + b"\n"


def _written(atoms: ase.Atoms) -> bytes:
    text = io.StringIO()
    ase.io.write(text, atoms, format=EXTENDED_XYZ)
    return text.getvalue().encode()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax split", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument(
        "structures", nargs="+", metavar="FILE", help="structures (any format of ASE)"
    )
    parser.add_argument(
        "--valid",
        type=float,
        default=0.1,
        metavar="X",
        help="share for validation (default: 0.1)",
    )
    parser.add_argument(
        "--test", type=float, default=0.1, metavar="X", help="share for tests (default: 0.1)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--output", default=".", metavar="FOLDER", help="where to write (default: here)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
