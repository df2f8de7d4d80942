"""Things by name: families, losses, solvers and all else that plugins may add to."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

_MOST_NAMES_LISTED = 20


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name most like `name`, whatever the case; None if none is like it.

    Where no name is spelled alike, the shortest of which all words of `name` are a part counts as
    like it: ``energy`` and ``energy_per_atom``.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    wanted = str(name).lower()
    matches = difflib.get_close_matches(wanted, list(by_lower), n=1)
    words = set(wanted.split("_"))
    longer = [candidate for candidate in by_lower if words <= set(candidate.split("_"))]
    matches = matches or sorted(longer, key=len)
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


T = TypeVar("T")


class UnknownNameError(ValueError, KeyError):
    """Nothing answers to a name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to things of one kind, in the order in which they were added.

    Args:
        kind: what messages call such a thing, such as "loss term".
        *things: the first ones, which have a ``name``.
        modules: that add the first ones; they are imported when things are asked for.
        names: of what they add, so that names alone import nothing.
    """

    def __init__(
        self, kind: str, *things: T, modules: Sequence[str] = (), names: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._modules, self._names = tuple(modules), tuple(names)
        for thing in things:
            self.add(thing)

    def add(self, thing: T) -> T:
        """Add a thing under its ``name``; also as a decorator of a class.

        Raises:
            ValueError: another thing has that name.
        """
        name: str = thing.name  # type: ignore[attr-defined]
        if name in self._names:
            self._import()  # unless they are being imported
        known = self._things.get(name)
        if known is not None and not _is_same(known, thing):
            raise ValueError(f"{self.kind} {name!r}: found a second one of that name")
        self._things[name] = thing
        return thing

    def __getitem__(self, name: str) -> T:
        """The thing of a name.

        Raises:
            UnknownNameError: nothing answers to the name; names the nearest that does.
        """
        self._import()
        if name not in self._things:
            raise UnknownNameError(unknown_name(self.kind, name, self._things))
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def _known(self) -> dict[str, None]:
        """All names, the first ones first."""
        if not self._names:
            self._import()
        return dict.fromkeys((*self._names, *self._things))

    def _import(self) -> None:
        """Import what adds the first things."""
        modules, self._modules = self._modules, ()
        for module in modules:
            importlib.import_module(module)


def _is_same(known: Any, thing: Any) -> bool:
    """Whether a thing is known already, or is what a module that was reloaded defines again."""
    if known is thing or known == thing:
        return True
    places = [
        (getattr(one, "__module__", None), getattr(one, "__qualname__", None))
        for one in (known, thing)
    ]
    return places[0] == places[1] and None not in places[0]
