"""Potentials of ænet as text, ``<name>.<element>.nn.ascii``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from mace_scf_jax.aenet.items import BASIS, PARAMETERS, layer_offsets, refuse
from mace_scf_jax.aenet.potential import ElementPotential
from mace_scf_jax.backbones.chebyshev.networks import ACTIVATIONS

_WORD = re.compile(r"\S+")
_EXPONENT_WITHOUT_LETTER = re.compile(r"([+-]?\d*\.\d*)([+-]\d{3})")
_FLAGS = {"t": True, "true": True, "f": False, "false": False}
_COLUMNS = 4
"""Numbers in a line: the oldest Fortran routines read four in fixed columns, all others any."""


class TextItems:
    """Items of a text. Line breaks mean nothing, but for texts, which are lines.

    Args:
        path: for messages.
        text: the whole file.
    """

    def __init__(self, path: str, text: str):
        self.path = path
        self._text = text
        self._place = 0

    def integers(self, item: int, name: str, count: int) -> list[int]:
        """Return whole numbers."""
        return self._numbers(item, name, count, int, "whole numbers")

    def floats(self, item: int, name: str, count: int) -> Float[np.ndarray, "count"]:
        """Return finite numbers."""
        return np.array(self._numbers(item, name, count, _finite, "finite numbers"), np.float64)

    def words(self, item: int, name: str, count: int) -> list[str]:
        """Return texts without spaces."""
        found = []
        while len(found) < count:
            word = _WORD.search(self._text, self._place)
            if word is None:
                refuse(
                    self.path,
                    item,
                    name,
                    f"expected {count}, found {len(found)} before the end of the file",
                )
            found.append(word[0])
            self._place = word.end()
        return found

    def text(self, item: int, name: str) -> str:
        """Return the next line."""
        rest, _, _ = self._text[self._place :].partition("\n")
        if rest.strip():
            refuse(
                self.path,
                item,
                name,
                f"expected a new line, found {rest.split()[0]!r} left over from the item before",
            )
        self._place += len(rest) + 1
        if self._place >= len(self._text):
            refuse(self.path, item, name, "expected a line of text, found the end of the file")
        line, _, _ = self._text[self._place :].partition("\n")
        self._place += len(line)
        return line.strip()

    def flag(self, item: int, name: str) -> bool:
        """Return a truth value as Fortran or Python write it."""
        (word,) = self.words(item, name, 1)
        value = _FLAGS.get(word.strip(".").lower())
        if value is None:
            refuse(self.path, item, name, f"expected T or F, found {word!r}")
        return value

    def end(self) -> None:
        """Refuse a file that goes on."""
        rest = self._text[self._place :].split()
        if rest:
            refuse(
                self.path,
                36,
                "energies per atom",
                f"expected the end of the file behind 3 numbers, found {len(rest)} more words, "
                f"{rest[0]!r} first",
            )

    def _numbers(
        self, item: int, name: str, count: int, convert: Callable[[str], Any], expected: str
    ) -> list[Any]:
        words = self.words(item, name, count)
        try:
            return [convert(word) for word in words]
        except ValueError:
            wrong = next(word for word in words if not _is(convert, word))
            refuse(self.path, item, name, f"expected {count} {expected}, found {wrong!r}")


def _is(convert: Callable[[str], Any], word: str) -> bool:
    try:
        convert(word)
    except ValueError:
        return False
    return True


def _finite(word: str) -> float:
    """A number as Fortran may write it: 1.0D+00, or 1.0-100 where the letter has no room."""
    plain = _EXPONENT_WITHOUT_LETTER.sub(r"\1e\2", word.lower().replace("d", "e"))
    value = float(plain)
    if not math.isfinite(value):
        raise ValueError(f"{word} is not finite")
    return value


def write_text(path: Path, potential: ElementPotential) -> None:
    """Write a potential, every number with 18 significant digits.

    Args:
        path: of the file.
    """
    path.write_text("".join(f"{line}\n" for line in _lines(potential)), encoding="utf-8")


def _lines(potential: ElementPotential) -> Iterable[str]:
    """The 36 items."""
    layers, descriptor = potential.layers, potential.descriptor
    nodes = [len(layers[0][0]), *(len(biases) for _, biases in layers)]
    weights_from, values_from = layer_offsets(nodes)
    codes = [*(list(ACTIVATIONS).index(name) for _, name in potential.architecture), 0]
    numbers = [np.concatenate([weights, biases[None]]).ravel() for weights, biases in layers]
    sizes = (len(nodes), max(nodes), weights_from[-1], values_from[-1] + 1)
    for size in sizes:
        yield from _integers([size])
    for values in (nodes, codes, weights_from, values_from):
        yield from _integers(values)
    yield from _floats(np.concatenate(numbers))
    yield _line(potential.description)
    yield chemical_symbols[potential.element]
    yield from _integers([len(descriptor.species)])
    yield " ".join(descriptor.symbols)
    yield from _floats([descriptor.min_cutoff])
    yield from _floats([descriptor.cutoff])
    yield BASIS
    yield from _integers([descriptor.size])
    yield from _integers([PARAMETERS])
    yield from _integers([0] * descriptor.size)
    parameters = np.zeros((descriptor.size, PARAMETERS))
    parameters[0] = (
        descriptor.rad_cutoff,
        descriptor.rad_order,
        descriptor.ang_cutoff,
        descriptor.ang_order,
    )
    yield from _floats(parameters.ravel())
    yield from _integers([0] * 2 * descriptor.size)
    features, training = potential.features, potential.training
    yield from _integers([features.atoms])
    for row in (features.minimum, features.maximum, features.average, features.second_moment):
        yield from _floats(row)
    yield _line(training.name)
    yield "T" if (potential.E_scaling, potential.E_shift) != (1.0, 0.0) else "F"
    yield from _floats([potential.E_scaling])
    yield from _floats([potential.E_shift])
    yield from _integers([len(potential.atomic_energies)])
    yield " ".join(chemical_symbols[element] for element in potential.atomic_energies)
    yield from _floats(list(potential.atomic_energies.values()))
    yield from _integers([training.atoms])
    yield from _integers([training.structures])
    yield from _floats(training.energies)


def _line(text: str) -> str:
    """A line whose first word Fortran can read: there is one, and no slash or quote begins it."""
    return " ".join(text.split()).lstrip("/\"' ") or "unknown"


def _integers(values: Sequence[int]) -> Iterable[str]:
    return _in_columns([f" {value:17d}" for value in values])


def _floats(values: Sequence[float] | Float[np.ndarray, "count"]) -> Iterable[str]:
    return _in_columns([f" {value:24.17E}" for value in values])


def _in_columns(words: Sequence[str]) -> Iterable[str]:
    for first in range(0, len(words), _COLUMNS):
        yield "".join(words[first : first + _COLUMNS])
