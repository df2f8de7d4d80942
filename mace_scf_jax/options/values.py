"""The kinds of value that options take, lenient in spelling and strict in meaning."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field, WrapValidator
from pydantic_core import core_schema

from mace_scf_jax.registry import nearest


def parse_literal(text: str) -> Any:
    """The value that a text describes as a Python or YAML literal; plain text stays text.

    Args:
        text: such as ``"{1: -13.6}"``, ``"[64, 64]"``, ``"{'loss': {'forces': 10}}"`` or
            ``"average"``.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _literal_if_text(value: Any) -> Any:
    return parse_literal(value) if isinstance(value, str) else value


def none_if_text(value: Any) -> Any:
    """Return None for the words that stand for it, else the value."""
    return None if isinstance(value, str) and value.strip().lower() in ("none", "null") else value


def _refuse_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, found a truth value")
    return value


_WORDS_FOR_ENERGIES = {
    "average": "average",
    "start": "start",
    "foundation": "start",
    "estimated": "estimated",
}
"""What stands for the energies of isolated atoms, and its word here."""


def energies_of_isolated_atoms(value: Any) -> Any:
    """A word, the name of a .json file, or atomic number → energy; symbols are numbers too."""
    if isinstance(value, str) and value.lower() in _WORDS_FOR_ENERGIES:
        return _WORDS_FOR_ENERGIES[value.lower()]
    if isinstance(value, str) and value.endswith(".json"):
        return value
    if value is None:
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"expected average, a .json file, {{element: energy}} or {{method: …}}, found {value!r}"
        )
    return _by_atomic_number(value, "energies in eV")


def _energies_of_elements(value: Any) -> Any:
    """Atomic number → energy; symbols are numbers too, and None is none."""
    if not isinstance(value, Mapping | None):
        raise ValueError(f"expected {{element: energy}}, found {value!r}")
    return _by_atomic_number(dict(value or {}), "energies in eV")


def _charges_of_elements(value: Any) -> Any:
    """Atomic number → charge; symbols are numbers too."""
    if not isinstance(value, dict):
        raise ValueError(f"expected {{element: charge}}, found {value!r}")
    return _by_atomic_number(value, "charges in e")


def _by_atomic_number(values: dict[Any, Any], what: str) -> dict[int, float]:
    """Numbers by atomic number from numbers by atomic number or symbol."""
    numbers: dict[int, float] = {}
    for element, number in values.items():
        try:
            numbers[int(atomic_numbers.get(element, element))] = float(number)
        except (TypeError, ValueError):
            raise ValueError(
                f"expected a mapping from elements to {what}, found {element!r}: {number!r}"
            ) from None
    return numbers


def _number_of_devices(value: Any) -> Any:
    """A number above 0 or ``all``."""
    text = str(value).strip().lower()
    if text == "all":
        return text
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ValueError(f"expected a whole number above 0 or all, found {value!r}")
    return int(text)


def not_yet(*values: str | bool) -> WrapValidator:
    """Refuse values that the method knows and this version does not."""

    def check(value: Any, parsed: Callable[[Any], Any]) -> Any:
        # Before parsing, which may refuse it with less to say; after it, in every spelling.
        if value in values or (value := parsed(value)) in values:
            raise ValueError(f"{value!r} is not available in this version")
        return value

    return WrapValidator(check)


@dataclasses.dataclass(frozen=True, eq=False)
class OneOf:
    """Marks an option whose values are the names in a collection, which plugins may add to."""

    names: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Text that is one of the names, as pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        if name not in self.names:
            *others, last = (repr(known) for known in self.names)
            guess = nearest(name, self.names)
            hint = "" if guess is None else f"; did you mean {guess!r}?"
            raise ValueError(f"expected {', '.join(others)} or {last}, found {name!r}{hint}")
        return name


def _path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


def _with_text_keys(value: Any) -> Any:
    return {str(key): of for key, of in value.items()} if isinstance(value, Mapping) else value


Literally = BeforeValidator(_literal_if_text)
"""Text is read as a Python or YAML literal."""

NoneInText = BeforeValidator(none_if_text)
"""The text ``None`` means None."""

Number = Annotated[float, BeforeValidator(_refuse_truth_value)]
WholeNumber = Annotated[int, BeforeValidator(_refuse_truth_value)]
PositiveNumber = Annotated[Number, Field(gt=0.0)]
NumberFromZero = Annotated[Number, Field(ge=0.0)]
PositiveWholeNumber = Annotated[WholeNumber, Field(ge=1)]
WholeNumberFromZero = Annotated[WholeNumber, Field(ge=0)]
FilePath = Annotated[Path, BeforeValidator(_path)]


def names_in(value: Any) -> Any:
    """Names separated by commas, or a list in text, as a tuple of names."""
    if isinstance(value, str):
        value = value.strip().strip("[]()").split(",")
    names = tuple(str(name).strip().strip("'\"") for name in value)
    return tuple(name for name in names if name)


NamesOfModules = Annotated[tuple[str, ...], BeforeValidator(names_in)]
NumberOfDevices = Annotated[int | Literal["all"], BeforeValidator(_number_of_devices)]
EnergiesOfElements = Annotated[dict[int, Number], BeforeValidator(_energies_of_elements)]
"""Energies in eV by atomic number."""

ChargesOfElements = Annotated[dict[int, Number], BeforeValidator(_charges_of_elements), Literally]
"""Charges in e by atomic number."""

TextKeys = BeforeValidator(_with_text_keys)
"""The keys of a block are text, whatever YAML reads them as."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
"""Text that becomes part of the names of files."""
