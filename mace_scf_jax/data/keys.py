"""Which key of a file holds which property: the `heads` block of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.properties import ATOM_INPUTS, GRAPH_INPUTS, PROPERTIES, Place
from mace_scf_jax.registry import nearest

NOT_IN_FILE = "none"
"""Key that stands for "this property is not in the file"."""

_COMPLETED_INFO = {
    "energy": NOT_IN_FILE,
    "stress": NOT_IN_FILE,
    "head": "head",
    "total_charge": "total_charge",
}
_COMPLETED_ARRAYS = {"forces": NOT_IN_FILE}


@dataclasses.dataclass(frozen=True)
class KeySpecification:
    """Keys of `atoms.info` and `atoms.arrays` by the canonical name of the property.

    The order of the names is the order in which properties are listed in summaries.
    """

    info_keys: Mapping[str, str]
    arrays_keys: Mapping[str, str]
    completed: frozenset[str] = frozenset()
    """Names that the user did not write and that were added."""
    plain: frozenset[str] = frozenset()
    """Names of properties in `info` that are also looked for under these very names."""

    def describe(self) -> str:
        """`<property> from <key>` for all properties that the user mapped to a key."""
        keys = {**self.info_keys, **self.arrays_keys}
        return ", ".join(
            f"{name} from {key}" for name, key in keys.items() if name not in self.completed
        )

    def __post_init__(self) -> None:
        for place, mapping in (("info", self.info_keys), ("arrays", self.arrays_keys)):
            for name, key in mapping.items():
                _check_entry(place, name, key)
        twice = sorted(set(self.info_keys) & set(self.arrays_keys))
        if twice:
            raise DataError(f"{_quoted(twice)} found in both info_keys and arrays_keys")

    @classmethod
    def from_heads(cls, heads: Any) -> KeySpecification:
        """The specification written in a `heads` block, completed.

        Missing `energy`, `stress` and `forces` are taken as not in the file; the total charge,
        which every model reads, is looked for under its own name. The name of the head has no
        meaning.

        Args:
            heads: `{any name: {"info_keys": {name: key}, "arrays_keys": {name: key}}}`.

        Raises:
            DataError: for anything but one head with exactly these two members, unknown names, or
                names in the wrong place.
        """
        if not isinstance(heads, Mapping):
            raise DataError(f"heads: found {type(heads).__name__}, expected a mapping")
        if len(heads) != 1:
            raise DataError(
                f"heads: found {len(heads)} heads ({_quoted(heads)}), expected exactly one"
            )
        name, members = next(iter(heads.items()))
        if not isinstance(members, Mapping) or set(members) != {"info_keys", "arrays_keys"}:
            found = _quoted(members) if isinstance(members, Mapping) else repr(members)
            raise DataError(
                f"heads, {name}: found {found}, expected exactly 'info_keys' and 'arrays_keys'"
            )
        info = _user_mapping(members["info_keys"], f"heads, {name}, info_keys")
        arrays = _user_mapping(members["arrays_keys"], f"heads, {name}, arrays_keys")
        added_info = {k: v for k, v in _COMPLETED_INFO.items() if k not in info}
        added_arrays = {k: v for k, v in _COMPLETED_ARRAYS.items() if k not in arrays}
        return cls(
            info_keys=info | added_info,
            arrays_keys=arrays | added_arrays,
            completed=frozenset(added_info) | frozenset(added_arrays),
        )

    def items(self) -> list[tuple[str, Place, str]]:
        """All (name, place, key), info first, in the order written."""
        return [(name, "info", key) for name, key in self.info_keys.items()] + [
            (name, "arrays", key) for name, key in self.arrays_keys.items()
        ]

    def names(self) -> list[str]:
        """Canonical names of all properties, in the order written."""
        return [name for name, _, _ in self.items()]

    def key_of(self, name: str) -> str | None:
        """Key of a property in the file; None where it is not mapped or mapped to `none`."""
        key = self.info_keys.get(name, self.arrays_keys.get(name))
        return None if key == NOT_IN_FILE else key

    def only(self, names: Iterable[str]) -> KeySpecification:
        """The keys of some properties."""
        names = frozenset(names)
        info, arrays = (
            {name: key for name, key in keys.items() if name in names}
            for keys in (self.info_keys, self.arrays_keys)
        )
        return KeySpecification(info, arrays, self.completed & names, self.plain & names)

    def stored_under(self, place: Place) -> tuple[str, ...]:
        """All keys that are looked for in a place."""
        keys = [key for _, at, key in self.items() if at == place and key != NOT_IN_FILE]
        return tuple(dict.fromkeys([*keys, *(self.plain if place == "info" else ())]))


def _user_mapping(mapping: Any, where: str) -> dict[str, str]:
    """A copy of a name-to-key mapping from user input; an empty entry (null) means `none`."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise DataError(f"{where}: found {mapping!r}, expected a mapping from name to key")
    return {name: NOT_IN_FILE if key is None else key for name, key in mapping.items()}


def _check_entry(place: Place, name: Any, key: Any) -> None:
    """Refuse unknown names, names in the wrong place and keys that are not text."""
    if name not in PROPERTIES:
        guess = nearest(str(name), PROPERTIES)
        hint = f"did you mean {guess!r}? " if guess else ""
        raise DataError(
            f"{place}_keys: found the unknown property {name!r}; {hint}"
            f"known properties: {', '.join(PROPERTIES)}"
        )
    if place not in PROPERTIES[name].places:
        expected = " or ".join(f"{other}_keys" for other in PROPERTIES[name].places)
        raise DataError(f"{place}_keys: found {name!r}, which belongs in {expected}")
    if not isinstance(key, str) or not key:
        raise DataError(f"{place}_keys, {name}: found {key!r}, expected the name of a key")


def _quoted(names: Any) -> str:
    """Names for a message."""
    return ", ".join(repr(name) for name in names) or "nothing"


PREDICTION_KEYS = KeySpecification(
    info_keys={name: name for name in GRAPH_INPUTS},
    arrays_keys={name: name for name in ATOM_INPUTS},
)
"""Keys under which the inputs of a model are looked for unless its training had others."""

Keys = KeySpecification | Mapping[str, Any]
"""Keys that are given: by the name of the property, or as a `heads` block."""


def keys_in_use(heads: Any | None, given: KeySpecification | None = None) -> KeySpecification:
    """The keys that every use of a model reads: given ones, then those of its training.

    Inputs that neither names have their own names as keys. An input in `info` whose key is that of
    the training is looked for under its own name too; two values that differ are an error, because
    one of them would be ignored.

    Args:
        heads: those of the training; None where the model does not tell.
        given: in their place, name by name.

    Raises:
        DataError: keys make no sense.
    """
    trained = PREDICTION_KEYS if heads is None else KeySpecification.from_heads(heads)
    chosen = KeySpecification({}, {}) if given is None else given
    info, arrays = (
        {name: key for name, key in keys.items() if name not in chosen.names()}
        for keys in (trained.info_keys, trained.arrays_keys)
    )
    info, arrays = info | dict(chosen.info_keys), arrays | dict(chosen.arrays_keys)
    plain = set()
    for name in GRAPH_INPUTS:
        if name not in chosen.names() and info.get(name, NOT_IN_FILE) == NOT_IN_FILE:
            info[name] = name
        elif name not in chosen.names() and info[name] != name:
            plain.add(name)
    for name in ATOM_INPUTS:
        if name not in chosen.names() and arrays.get(name, NOT_IN_FILE) == NOT_IN_FILE:
            arrays[name] = name
    return KeySpecification(info, arrays, trained.completed, frozenset(plain))


def specification(given: Any) -> KeySpecification:
    """Given keys, each in its place.

    Args:
        given: `Keys`.

    Raises:
        DataError: keys make no sense.
    """
    if isinstance(given, KeySpecification):
        return given
    if isinstance(given, Mapping) and not all(isinstance(it, str | None) for it in given.values()):
        return KeySpecification.from_heads(given)
    keys = _user_mapping(given, "keys")
    in_arrays = {n for n in keys if n in PROPERTIES and PROPERTIES[n].places[0] == "arrays"}
    return KeySpecification(
        {name: key for name, key in keys.items() if name not in in_arrays},
        {name: key for name, key in keys.items() if name in in_arrays},
    )
