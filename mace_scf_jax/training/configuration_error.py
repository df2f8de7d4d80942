"""The exception for mistakes in what the user asked for, and hints at the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def problems_of(error: ValueError) -> tuple[str, ...]:
    """The separate problems that an error reports: one, unless it is a ConfigurationError."""
    return error.problems if isinstance(error, ConfigurationError) else (str(error),)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Sentence for a name that nothing answers to, with the nearest known one.

    Args:
        kind: what is named, such as "option" or "loss term".
        name: the name found.
        known: the names that exist.

    Returns:
        "unknown <kind> '<name>'; did you mean '<nearest>'?", or with the list of all known names
        where none is near.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name).lower(), [k.lower() for k in known], n=1)
    if nearest:
        meant = next(k for k in known if k.lower() == nearest[0])
        return f"unknown {kind} {name!r}; did you mean {meant!r}?"
    if len(known) > 20:
        return f"unknown {kind} {name!r}"
    return f"unknown {kind} {name!r}; known are {', '.join(known)}"
