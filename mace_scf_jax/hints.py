"""Hints at the name that was meant by one that nothing answers to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_NAMES_LISTED = 20


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name most like `name`, whatever the case; None if none is like it."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1)
    return by_lower[matches[0]] if matches else None


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
    guess = nearest(name, known)
    if guess is not None:
        return f"unknown {kind} {name!r}; did you mean {guess!r}?"
    if len(known) > _MOST_NAMES_LISTED:
        return f"unknown {kind} {name!r}"
    return f"unknown {kind} {name!r}; known are {', '.join(known)}"
