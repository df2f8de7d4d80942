"""Things by name: families, losses, solvers and all else that plugins may add to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from mace_scf_jax.hints import unknown_name

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
    """

    def __init__(self, kind: str, *things: T) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        for thing in things:
            self.add(thing)

    def add(self, thing: T) -> T:
        """Add a thing under its ``name``; also as a decorator of a class.

        Raises:
            ValueError: another thing has that name.
        """
        name: str = thing.name  # type: ignore[attr-defined]
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
        if name not in self._things:
            raise UnknownNameError(unknown_name(self.kind, name, self._things))
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things


def _is_same(known: Any, thing: Any) -> bool:
    """Whether a thing is known already, or is what a module that was reloaded defines again."""
    if known is thing or known == thing:
        return True
    places = [
        (getattr(one, "__module__", None), getattr(one, "__qualname__", None))
        for one in (known, thing)
    ]
    return places[0] == places[1] and None not in places[0]
