"""The exception for mistakes in what the user asked for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from mace_scf_jax.registry import nearest, unknown_name

WHAT_IS_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "model_type": "a mapping",
    "string_pattern_mismatch": "letters, digits and . _ + - because it becomes part of file names",
    "string_type": "text",
    "tuple_type": "a list",
}
"""In words, by the type of the error that pydantic reports."""


class ConfigurationError(ValueError):
    """The configuration asks for something that cannot be done; holds every problem found.

    Args:
        problems: one sentence each, naming the option, what was found and what was expected.
    """

    def __init__(self, *problems: str):
        self.problems = problems
        super().__init__(*problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} problems in the configuration:{listed}"

    def within(self, where: str) -> ConfigurationError:
        """Say of every problem where it is.

        Args:
            where: what holds the options that the problems name.
        """
        return ConfigurationError(*(f"{where}: {problem}" for problem in self.problems))


def problems_of(error: ValueError) -> tuple[str, ...]:
    """The separate problems that an error reports: one, unless it is a ConfigurationError."""
    return error.problems if isinstance(error, ConfigurationError) else (str(error),)


@contextlib.contextmanager
def collecting(problems: list[str], *, within: str | None = None) -> Iterator[None]:
    """Go on after a ConfigurationError, so that its problems can be told with others.

    Args:
        problems: receives those of the error.
        within: where they are.
    """
    try:
        yield
    except ConfigurationError as error:
        problems += (error if within is None else error.within(within)).problems


def problems_in_values(
    error: ValidationError, known: Iterable[str], *, kind: str = ""
) -> tuple[str, ...]:
    """Tell what pydantic found wrong, one sentence each: where it is, what was expected and found.

    Args:
        error: of a model.
        known: names of its fields.
        kind: what the fields are called, such as "option"; empty for the keys of a block.
    """
    return tuple(
        problem for detail in error.errors() for problem in _described(detail, known, kind)
    )


def _described(detail: Mapping[str, Any], known: Iterable[str], kind: str) -> tuple[str, ...]:
    first, *rest = detail["loc"] or ("",)
    where = f"{kind} {first!r}" if kind and first else str(first)
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, ConfigurationError):
        return raised.problems if kind or not first else raised.within(where).problems
    if detail["type"] == "missing":
        return (f"{where if kind else repr(first)} is required",)
    if detail["type"] == "extra_forbidden":
        return (unknown_name(kind or "key", first, known),)
    # Within mappings and lists; pydantic also lists what it tried there, such as "list[int]".
    places = [where, *(str(place) for place in rest if not {*"[-"} & {*str(place)})]
    text = str(raised) if raised else f"expected {_expected(detail)}"
    return (": ".join(part for part in (*places, text) if part),)


def _expected(detail: Mapping[str, Any]) -> str:
    """What was expected and found."""
    template = WHAT_IS_EXPECTED.get(detail["type"])
    expected = detail["msg"].replace("Input should be ", "")
    if template is not None:
        expected = template.format(**detail.get("ctx", {}))
    text = f"{expected}, found {detail['input']!r}"
    if detail["type"] in ("literal_error", "enum"):
        guess = nearest(detail["input"], re.findall("'([^']*)'", expected))
        text += "" if guess is None else f"; did you mean {guess!r}?"
    return text
