"""Which key of a file holds which property: the `heads` block of a configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.properties import ATOM_INPUTS, GRAPH_INPUTS, PROPERTIES, Place
from mace_scf_jax.registry import nearest

if TYPE_CHECKING:
    import ase

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
    heads: tuple[Head, ...] = ()
    """Of several levels of theory, each with keys of its own; empty for a single one."""

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
        which every model reads, is looked for under its own name. The name of a single head has no
        meaning. With several heads the keys are those of the first, and `heads` has all.

        Args:
            heads: `{any name: {"info_keys": {name: key}, "arrays_keys": {name: key}}}`; with
                several heads each may have further members, those of `Head`.

        Raises:
            DataError: for no head, missing or unknown members, unknown names, or names in the wrong
                place.
        """
        if not isinstance(heads, Mapping):
            raise DataError(f"heads: found {type(heads).__name__}, expected a mapping")
        if not heads:
            raise DataError("heads: found 0 heads, expected one or several")
        if len(heads) > 1:
            several = tuple(Head.of(str(name), members) for name, members in heads.items())
            return dataclasses.replace(several[0].keys, heads=several)
        name, members = next(iter(heads.items()))
        if not isinstance(members, Mapping) or set(members) != KEYS_OF_HEADS:
            found = _quoted(members) if isinstance(members, Mapping) else repr(members)
            raise DataError(
                f"heads, {name}: found {found}, expected exactly 'info_keys' and 'arrays_keys'"
            )
        return cls._of_head(name, members)

    @classmethod
    def _of_head(cls, name: str, members: Mapping[str, Any]) -> KeySpecification:
        info = _user_mapping(members["info_keys"], f"heads, {name}, info_keys")
        arrays = _user_mapping(members["arrays_keys"], f"heads, {name}, arrays_keys")
        added_info = {k: v for k, v in _COMPLETED_INFO.items() if k not in info}
        added_arrays = {k: v for k, v in _COMPLETED_ARRAYS.items() if k not in arrays}
        return cls(
            info_keys=info | added_info,
            arrays_keys=arrays | added_arrays,
            completed=frozenset(added_info) | frozenset(added_arrays),
        )

    def head_of(self, atoms: ase.Atoms, location: Location) -> tuple[int | None, KeySpecification]:
        """Return the place of a structure's head among several, and its keys.

        Args:
            atoms: its ``head``, if it has one, names it; else the name of its file does.
            location: of the structure.

        Raises:
            DataError: there is no such head, or none is named.
        """
        if not self.heads:
            return None, self
        names = [head.name for head in self.heads]
        found = atoms.info.get(self.info_keys.get("head", "head"))
        if found is None:
            file = "" if location.file is None else PurePath(location.file).name
            fitting = [head for head in self.heads if head.files and fnmatch(file, head.files)]
            if not fitting:
                raise DataError(
                    f"{location}: the structure names no head (head=…), expected one of "
                    f"{', '.join(names)}; of a trained model one is chosen by --head NAME, in "
                    "Python head=NAME"
                )
            found = fitting[0].name
        if str(found) not in names:
            guess = nearest(str(found), names)
            hint = "" if guess is None else f"; did you mean {guess!r}?"
            raise DataError(
                f"{location}: head: expected one of {', '.join(names)}, found {found!r}{hint}"
            )
        place = names.index(str(found))
        return place, self.heads[place].keys

    def of_each_head(self, change: Callable[[KeySpecification], KeySpecification]) -> tuple:
        """Return the heads with their keys changed."""
        return tuple(dataclasses.replace(head, keys=change(head.keys)) for head in self.heads)

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
        return KeySpecification(
            info,
            arrays,
            self.completed & names,
            self.plain & names,
            self.of_each_head(lambda keys: keys.only(names)),
        )

    def stored_under(self, place: Place) -> tuple[str, ...]:
        """All keys that are looked for in a place."""
        keys = [key for _, at, key in self.items() if at == place and key != NOT_IN_FILE]
        return tuple(dict.fromkeys([*keys, *(self.plain if place == "info" else ())]))


KEYS_OF_HEADS = {"info_keys", "arrays_keys"}
"""Members of every head."""


@dataclasses.dataclass(frozen=True)
class Head:
    """One of several levels of theory that a model is trained on at once."""

    name: str
    keys: KeySpecification
    files: str | None = None
    """Pattern of the names of files whose structures belong to it, unless they name their head."""
    E0s: Any = None
    """Energies of its isolated atoms, as the option of this name; None for those of all heads."""
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Factors on the weights of its labels in losses, by property."""

    @classmethod
    def of(cls, name: str, members: Any) -> Head:
        """Return a head out of its entry in a `heads` block.

        Raises:
            DataError: members are missing, unknown or make no sense.
        """
        further = {field.name for field in dataclasses.fields(cls)} - {"name", "keys"}
        if not isinstance(members, Mapping) or not (
            KEYS_OF_HEADS <= set(members) <= KEYS_OF_HEADS | further
        ):
            found = _quoted(members) if isinstance(members, Mapping) else repr(members)
            raise DataError(
                f"heads, {name}: found {found}, expected 'info_keys' and 'arrays_keys', and of "
                f"several heads perhaps {_quoted(sorted(further))}"
            )
        files, weights = members.get("files"), members.get("loss_weights") or {}
        if files is not None and not isinstance(files, str):
            raise DataError(f"heads, {name}, files: found {files!r}, expected a pattern of names")
        if not isinstance(weights, Mapping):
            raise DataError(
                f"heads, {name}, loss_weights: found {weights!r}, expected {{property: factor}}"
            )
        for label, factor in weights.items():
            _check_entry(PROPERTIES[label].places[0] if label in PROPERTIES else "info", label, "-")
            is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not is_number or not 0.0 <= factor < math.inf:
                raise DataError(
                    f"heads, {name}, loss_weights, {label}: found {factor!r}, expected a finite "
                    "number ≥ 0"
                )
        keys = KeySpecification._of_head(name, members)
        return cls(name, keys, files, members.get("E0s"), dict(weights))


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
    used = _in_use(trained, given)
    of_heads = trained.of_each_head(lambda keys: _in_use(keys, given))
    return dataclasses.replace(used, heads=of_heads)


def _in_use(trained: KeySpecification, given: KeySpecification | None) -> KeySpecification:
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
