"""Files of ænet, as text or binary."""

from __future__ import annotations

from pathlib import Path

from mace_scf_jax.aenet.items import read_items
from mace_scf_jax.aenet.potential import AenetFileError, ElementPotential
from mace_scf_jax.aenet.records import FIRST_BYTES, RecordItems
from mace_scf_jax.aenet.text import TextItems

SUFFIXES = (".ascii", ".nn")
"""Ends of the names of potentials of ænet."""


def read_potential(path: str | Path) -> ElementPotential:
    """Read the potential of an element, whichever kind of file it is.

    Raises:
        AenetFileError: the file is missing, truncated, contradicts itself, goes on behind its end,
            or holds something that has no counterpart here, such as the descriptor Behler2011.
    """
    path = Path(path)
    if not path.is_file():
        raise AenetFileError(f"{path}: no such file")
    content = path.read_bytes()
    if content.startswith(FIRST_BYTES):
        with RecordItems(str(path)) as records:
            return read_items(records)
    if b"\0" in content:
        raise AenetFileError(
            f"{path}: expected a potential of ænet, found neither text nor records"
        )
    return read_items(TextItems(str(path), content.decode("utf-8", errors="replace")))
